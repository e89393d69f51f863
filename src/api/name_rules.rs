//! Rules of admission for names that Kubernetes looks up, and for images: a misspelt one is told where it is written.

/// Path of an image: lower case, with a registry before it or not.
const IMAGE: &str = "^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@[a-z0-9]+:[0-9a-fA-F]+)?$";

/// The rule for the reference of an image.
pub(crate) fn is_image() -> String {
    format!("self.matches('{IMAGE}')")
}

/// What is said of a value that breaks [`is_image`].
pub(crate) const IMAGE_MESSAGE: &str = "'engine.image: \"' + self.replace('\\n', ' ') + '\" is not an image reference: write HOST/NAME:TAG or HOST/NAME@DIGEST, the name in lower case, without https://'";

/// The rule for the name of an object of the whole cluster; an empty one is none.
pub(crate) const IS_OBJECT_NAME: &str = "self == '' || self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";

/// The rule for the name of an object that is made.
pub(crate) const IS_SUBDOMAIN: &str =
    "self.size() <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";

/// What is said of a value that breaks [`IS_OBJECT_NAME`] or [`IS_SUBDOMAIN`].
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
