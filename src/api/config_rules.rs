//! The rules of `spec.config`, made from the tables of directives: what `kubectl apply` says and what `validate` says is one.

use kube::core::Rule;
use schemars::Schema;

use crate::model::directives::{self, DirectiveClass};

/// How a directive is spelled.
const WORD: &str = "^[a-z][a-z0-9-]{0,63}$";

/// Names are words of `redis.conf`.
pub(crate) fn name_is_a_word() -> String {
    format!("self.all(name, name.matches('{WORD}'))")
}

/// The first name that is none.
pub(crate) fn name_message() -> String {
    format!(
        "'config: \"' + self.filter(name, !name.matches('{WORD}'))[0] + '\" is not the name of a directive: lower-case letters, digits and -, at most 64 characters, such as io-threads'"
    )
}

/// Values neither end a line nor begin or end a quotation.
pub(crate) const VALUE_IS_PRINTABLE: &str = "self.all(name, self[name].matches('^[ !#-&(-\\\\[\\\\]-~]*$'))";

/// Only a directive of several words has a value with spaces.
pub(crate) fn value_is_one_word() -> String {
    format!("self.all(name, {})", is_one_word())
}

/// The first directive whose value is several words and takes one.
pub(crate) fn words_message() -> String {
    format!("'config: ' + self.filter(name, !({}))[0] + ': its value is one word, without spaces'", is_one_word())
}

fn is_one_word() -> String {
    let several = quoted(directives::known_names().filter(|name| directives::takes_words(name)));
    format!("name in [{several}] || !self[name].contains(' ')")
}

/// A rule for each directive that may not be set: its message names the directive and the way. (One rule for all could only say all ways
/// at once: a message that is made of the names costs more than the API server allows.)
///
/// # Panics
///
/// Never: a rule is always JSON.
pub(crate) fn one_rule_each(schema: &mut Schema) {
    for (rule, message) in refusals() {
        let rule = Rule::new(rule).message(message.as_str());
        kube::core::validate(schema, rule).expect("a rule is always JSON");
    }
}

fn refusals() -> Vec<(String, String)> {
    let (prefixes, suffixes) = directives::our_affixes();
    let is_not = |name: &str| format!("!('{name}' in self)");
    let ours = |name: &str, shown: &str| match directives::class(name) {
        DirectiveClass::Ours(what_for) => format!("config: {shown} is set by Redoubt, for {what_for}"),
        other => unreachable!("{name} is {other:?}"),
    };
    let named = directives::our_names().map(|name| (is_not(name), ours(name, name)));
    let begun = prefixes.map(|prefix| {
        let shown = format!("{prefix}*");
        (format!("self.all(name, !name.startsWith('{prefix}'))"), ours(&format!("{prefix}x"), &shown))
    });
    let ended = suffixes.map(|suffix| {
        let shown = format!("*{suffix}");
        (format!("self.all(name, !name.endsWith('{suffix}'))"), ours(&format!("x{suffix}"), &shown))
    });
    let of_fields = directives::field_names()
        .map(|(name, field)| (is_not(name), format!("config: {name} is set by the field {field}: write it there")));
    let renamed = directives::renamed_names()
        .map(|(name, new)| (is_not(name), format!("config: {name} is the old name of {new}: write the new one")));
    named.chain(begun).chain(ended).chain(of_fields).chain(renamed).collect()
}

fn quoted(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
