//! Rules of admission that every kind of use has.

use super::data_layer::DeploymentMode;

pub(crate) const PREFIX_STAYS: &str =
    "(has(self.keyPrefix) ? self.keyPrefix : '') == (has(oldSelf.keyPrefix) ? oldSelf.keyPrefix : '')";
/// How a key prefix is written.
pub(crate) const IS_PREFIX: &str = "self.matches('^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}:$')";
/// What is said of one that is written otherwise.
pub(crate) const PREFIX_MESSAGE: &str =
    "keyPrefix must begin with a letter or digit, hold only letters, digits, '-', '_', '.' and ':', and end with ':'";
/// A use neither leaves the layer that it names nor goes to one. Of another name [`super::use_fields::LayerChoice`] says the same.
pub(crate) const LAYER_STAYS: &str =
    "(has(self.layer) && has(self.layer.name)) == (has(oldSelf.layer) && has(oldSelf.layer.name))";
/// What is said of another layer.
pub(crate) const LAYER_MESSAGE: &str =
    "layer.name and layer.namespace cannot be changed: what the old layer holds would be lost; make a new object";
/// A dedicated layer stays where it says what cannot be taken back.
pub(crate) const DEDICATED_STAYS: &str = "!has(oldSelf.layer) || !has(oldSelf.layer.dedicated) || (has(self.layer) && has(self.layer.dedicated)) || (oldSelf.layer.dedicated.mode == 'Sentinel' && !(has(oldSelf.layer.dedicated.engine) && has(oldSelf.layer.dedicated.engine.image)) && !(has(oldSelf.layer.dedicated.persistence) && has(oldSelf.layer.dedicated.persistence.volume)))";
/// What is said of one that goes.
pub(crate) const DEDICATED_MESSAGE: &str =
    "layer.dedicated cannot be removed: its mode, engine.image and persistence.volume cannot be taken back";
pub(crate) const ROTATION_GROWS: &str = "(has(self.access) && has(self.access.rotation) ? self.access.rotation : 0) >= (has(oldSelf.access) && has(oldSelf.access.rotation) ? oldSelf.access.rotation : 0)";
/// What is said of one that shrinks.
pub(crate) const ROTATION_MESSAGE: &str =
    "access.rotation only grows: a password that was dropped is never valid again";
/// How a use is named.
pub(crate) const IS_NAME: &str =
    "self.metadata.name.size() <= 31 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";

/// The rule that a dedicated layer, where it says a purpose, says this one.
pub(crate) fn purpose_is(purpose: &str) -> String {
    format!(
        "!has(self.layer) || !has(self.layer.dedicated) || !has(self.layer.dedicated.purpose) || self.layer.dedicated.purpose == '{purpose}'"
    )
}

/// What is said of a name that breaks [`IS_NAME`]; `suffix`: of the dedicated layer.
pub(crate) fn name_message(suffix: &str) -> String {
    format!(
        "metadata.name must begin with a letter, hold only a-z, 0-9 and '-', and be at most 31 characters: a dedicated layer is named NAME-{suffix}"
    )
}

/// The rule that a store does not wait for more replicas than its dedicated layer has.
pub(crate) fn replicas_confirm() -> String {
    format!(
        "!has(self.revokeReplicas) || (has(self.layer) && has(self.layer.name)) || self.revokeReplicas <= ({})",
        replicas_of_dedicated()
    )
}

/// What is said of a store that does.
pub(crate) const REPLICAS_MESSAGE: &str =
    "revokeReplicas is above the replicas of the dedicated layer: no revocation would ever be confirmed";

fn replicas_of_dedicated() -> String {
    const DEDICATED: &str = "self.layer.dedicated";
    let [one_node, several] =
        [DeploymentMode::Standalone, DeploymentMode::Sentinel].map(DeploymentMode::default_replicas);
    format!(
        "!has(self.layer) || !has({DEDICATED}) ? {several} : (has({DEDICATED}.replicas) ? {DEDICATED}.replicas : ({DEDICATED}.mode == 'Standalone' ? {one_node} : {several}))"
    )
}
