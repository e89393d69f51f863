//! What is wrong with a specification, and the words that several fields share.

use crate::api::quantity_rules;

/// One thing that is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", message(field, problem))]
pub struct Fault {
    /// Path of the field as messages name it, such as `spec.cpu`.
    pub field: &'static str,
    /// What is wrong, in a sentence for the person who wrote it.
    pub problem: String,
}

/// A broken rule of admission names its field itself.
fn message(field: &str, problem: &str) -> String {
    let is_named = field == "spec" && problem.starts_with(field);
    if is_named { problem.to_owned() } else { format!("{field}: {problem}") }
}

/// What is said of a text that is no quantity of bytes.
pub(super) fn not_bytes(text: &str) -> String {
    format!("{text:?} is not a quantity of bytes: write a number with M, G, Mi or Gi, such as 10Gi")
}

/// Of bytes of which there are too few, as admission says it; `enough`: what to write instead.
pub(super) fn too_few_bytes(text: &str, enough: &str) -> String {
    let is_bare = text.bytes().all(|letter| letter.is_ascii_digit() || letter == b'.');
    let words = if is_bare { quantity_rules::HAS_NO_UNIT } else { quantity_rules::IS_TOO_SMALL };
    format!("{text:?} {words} {enough}")
}

/// A number that the schema bounds already; 0 where an object was stored before it did.
pub(super) fn to_u16_or_zero(number: i32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}
