//! The rules of `spec.podMetadata`: what is a name, and what is ours.

use schemars::Schema;
use serde_json::Value;

use super::names::{ANNOTATIONS_OF_PODS, LABELS_OF_PODS, OUR_PREFIXES};

/// Keys are qualified names: what is before a slash is words between dots.
pub(crate) const KEYS_ARE_NAMES: &str = "self.all(key, key.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$') && !key.matches('^[^/]*([.][.-]|-[.])[^/]*/'))";
pub(crate) const VALUES_ARE_LABELS: &str =
    "self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))";

/// What Kubernetes takes as the expressions of a selector.
pub(crate) const EXPRESSIONS_COMPARE: &str = "!has(self.matchExpressions) || self.matchExpressions.all(it, it.operator in ['In', 'NotIn'] ? has(it.values) && it.values.size() > 0 : it.operator in ['Exists', 'DoesNotExist'] && (!has(it.values) || it.values.size() == 0))";

/// Bounds the expressions of a selector: a rule about them costs too much otherwise.
pub(crate) fn bound_expressions(selector: &mut Schema) {
    if let Some(list) = selector.pointer_mut("/properties/matchExpressions").and_then(Value::as_object_mut) {
        list.insert("maxItems".to_owned(), 20.into());
    }
}

pub(crate) fn labels_are_not_ours() -> String {
    not_among(&LABELS_OF_PODS)
}

pub(crate) fn annotations_are_not_ours() -> String {
    not_among(&ANNOTATIONS_OF_PODS)
}

fn not_among(ours: &[&str]) -> String {
    let names: Vec<String> = ours.iter().map(|name| format!("'{name}'")).collect();
    let prefixes: Vec<String> = OUR_PREFIXES.iter().map(|prefix| format!("!key.startsWith('{prefix}')")).collect();
    format!("self.all(key, !(key in [{}]) && {})", names.join(", "), prefixes.join(" && "))
}
