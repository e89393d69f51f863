//! Rules of admission for names that Kubernetes looks up, and for images: a misspelt one is told where it is written.

use schemars::Schema;
use serde_json::Value;

/// Path of an image: lower case, with a registry before it or not.
const IMAGE: &str = "^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@[a-z0-9]+:[0-9a-fA-F]+)?$";

/// The rule for the reference of an image.
pub(crate) fn is_image() -> String {
    format!("self.matches('{IMAGE}')")
}

/// What is said of a value that breaks [`is_image`].
pub(crate) const IMAGE_MESSAGE: &str = "'engine.image: \"' + self.replace('\\n', ' ') + '\" is not an image reference: write HOST/NAME:TAG or HOST/NAME@DIGEST, the name in lower case, without https://'";

/// How a Kubernetes object is named: words between dots.
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// The rule for the name of an object that `value` is.
pub(crate) fn names_an_object(value: &str) -> String {
    format!("({value}.size() <= 253 && {value}.matches('^{SUBDOMAIN}$'))")
}

/// The rule for the name of an object that is made or read.
pub(crate) fn is_object_name() -> String {
    names_an_object("self")
}

/// The rule for the name of an object that Kubernetes looks up; an empty one is none.
pub(crate) fn is_object_name_or_none() -> String {
    format!("self == '' || {}", is_object_name())
}

/// The same, of the Secrets of a list.
pub(crate) fn name_objects() -> String {
    format!("self.all(it, !has(it.name) || it.name == '' || {})", names_an_object("it.name"))
}

/// The rule that a layer's storage class stays. One of which there can be no volume, for its name, may be changed.
pub(crate) fn storage_class_stays() -> String {
    let class = |layer: &str| format!("{layer}.persistence.volume.storageClassName");
    let has_class =
        |layer: &str| format!("has({layer}.persistence) && has({layer}.persistence.volume) && has({})", class(layer));
    let of = |layer: &str| format!("({} ? {} : '')", has_class(layer), class(layer));
    let [new, old] = ["self", "oldSelf"].map(of);
    format!("{new} == {old} || ({old} != '' && !{})", names_an_object(&old))
}

/// Bounds the names of a list of references: a rule about them costs too much otherwise.
pub(crate) fn bound_names(list: &mut Schema) {
    if let Some(name) = list.pointer_mut("/items/properties/name").and_then(Value::as_object_mut) {
        name.insert("maxLength".to_owned(), 253.into());
    }
}

/// The rule for the name of a layer.
pub(crate) const IS_LAYER_NAME: &str = "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
/// What is said of a value that breaks [`IS_LAYER_NAME`].
pub(crate) const LAYER_NAME_MESSAGE: &str =
    "layer.name must begin with a letter and hold only a-z, 0-9 and '-', as the names of layers do";
/// The rule for the name of a namespace.
pub(crate) const IS_NAMESPACE: &str = "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
/// What is said of a value that breaks [`IS_NAMESPACE`].
pub(crate) const NAMESPACE_MESSAGE: &str =
    "layer.namespace must hold only a-z, 0-9 and '-', as the names of namespaces do";
/// The rule for a key of a ConfigMap.
pub(crate) const IS_KEY: &str = "self.matches('^[-._a-zA-Z0-9]+$')";
/// What is said of a value that breaks [`IS_KEY`].
pub(crate) const KEY_MESSAGE: &str = "source.configMap.key must hold only letters, digits, '-', '_' and '.'";

/// Whether Kubernetes takes this as the name of an object: no other belongs into the path of a request.
pub(crate) fn is_name_of_object(name: &str) -> bool {
    let is_word = |word: &str| {
        let mut letters = word.bytes();
        letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
            && !word.is_empty()
            && !word.starts_with('-')
            && !word.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_word)
}

/// Whether Kubernetes takes this as a key of a ConfigMap.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-._".contains(&letter))
}

/// What is said of a value that is no name of an object.
pub(crate) fn object_name_message(field: &str, kind: &str) -> String {
    format!(
        "'{field}: \"' + self.replace('\\n', ' ') + '\" is not the name of a {kind}: lower-case letters, digits, - and .'"
    )
}

/// What Kubernetes takes as the operator of a toleration.
const OPERATORS: &str = "['', 'Equal', 'Exists', 'Lt', 'Gt']";
/// What Kubernetes takes as the effect of a toleration.
const EFFECTS: &str = "['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute']";

pub(crate) fn are_operators() -> String {
    format!("self.all(it, !has(it.operator) || it.operator in {OPERATORS})")
}

/// What is said of tolerations that break [`are_operators`].
pub(crate) const OPERATORS_MESSAGE: &str = "scheduling.tolerations: the operator of a toleration is Equal or Exists";

pub(crate) fn are_effects() -> String {
    format!("self.all(it, !has(it.effect) || it.effect in {EFFECTS})")
}

/// What is said of tolerations that break [`are_effects`].
pub(crate) const EFFECTS_MESSAGE: &str =
    "scheduling.tolerations: the effect of a toleration is NoSchedule, PreferNoSchedule or NoExecute";

/// The rule that a toleration without a value to compare has none, and one without a key has no operator that compares.
pub(crate) const COMPARE_SOMETHING: &str = "self.all(it, has(it.operator) && it.operator == 'Exists' ? !has(it.value) || it.value == '' : has(it.key) && it.key != '')";
/// What is said of one that does not.
pub(crate) const COMPARE_MESSAGE: &str =
    "scheduling.tolerations: operator Exists takes no value, and every other operator needs a key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_objects_get_into_the_path_of_a_request() {
        for name in ["a", "lua.v2", "a-b.0c"] {
            assert!(is_name_of_object(name), "{name}");
        }
        let long = "a".repeat(254);
        for name in
            ["", ".", "..", "../../platform/configmaps/lib", "?x", "a#b", "%2e%2e", "a..b", "a-.b", "-a", "A", &long]
        {
            assert!(!is_name_of_object(name), "{name}");
        }
    }
}
