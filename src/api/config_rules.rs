//! The rules of `spec.config`, made from the tables of directives: what `kubectl apply` says and what `validate` says is one.

use std::fmt::Write as _;

use crate::model::directives;

/// Names are words of `redis.conf`.
pub const NAME_IS_A_WORD: &str = "self.all(name, name.matches('^[a-z][a-z0-9-]{0,63}$'))";
/// Values neither end a line nor begin or end a quotation.
pub const VALUE_IS_PRINTABLE: &str = "self.all(name, self[name].matches('^[ !#-&(-\\\\[\\\\]-~]*$'))";

/// Only a directive of several words has a value with spaces.
pub fn value_is_one_word() -> String {
    let several = quoted(directives::known_names().filter(|name| directives::takes_words(name)));
    format!("self.all(name, name in [{several}] || !self[name].contains(' '))")
}

/// No directive that is ours.
pub fn is_not_ours() -> String {
    let (prefixes, suffixes) = directives::our_affixes();
    let mut rule = format!("self.all(name, !(name in [{}])", quoted(directives::our_names()));
    for prefix in prefixes {
        // Writing to a String cannot fail.
        let _ = write!(rule, " && !name.startsWith('{prefix}')");
    }
    for suffix in suffixes {
        let _ = write!(rule, " && !name.endsWith('{suffix}')");
    }
    rule + ")"
}

/// No directive that a field sets.
pub fn is_no_field() -> String {
    format!("self.all(name, !(name in [{}]))", quoted(directives::field_names().map(|(name, _)| name)))
}

/// Which field sets which directive.
pub fn fields_message() -> String {
    format!("config: use the field instead: {}", pairs(directives::field_names(), "by"))
}

/// No old name.
pub fn is_not_renamed() -> String {
    format!("self.all(name, !(name in [{}]))", quoted(directives::renamed_names().map(|(name, _)| name)))
}

/// Which old name is which.
pub fn renamed_message() -> String {
    format!("config: this is an old name; use the new one: {}", pairs(directives::renamed_names(), "is"))
}

fn quoted(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn pairs(pairs: impl Iterator<Item = (&'static str, &'static str)>, verb: &str) -> String {
    pairs.map(|(one, other)| format!("{one} {verb} {other}")).collect::<Vec<_>>().join(", ")
}
