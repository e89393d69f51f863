//! Fields that the specifications of several kinds of use share.

use kube::KubeSchema;
use kube::core::Duration;
use serde::{Deserialize, Serialize};

use super::data_layer::DataLayerSpec;
use super::{name_rules, quantity_rules, use_rules};

/// Where the keys are. Default: a layer of the use's own, as of `dedicated: {mode: Sentinel}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.dedicated)").message("layer needs either name or dedicated, not both"),
    validation = Rule::new("!has(self.dedicated) || self.dedicated.mode != 'Cluster'")
        .message("layer.dedicated.mode Cluster serves no uses in this version; use Sentinel"),
    // CEL writes a reserved word so.
    validation = Rule::new("!has(self.__namespace__) || has(self.name)")
        .message("layer.namespace belongs to layer.name: a dedicated layer is in the namespace of its use"),
    // `namespace` is a reserved word of CEL: with a name there is nothing else that could differ.
    validation = Rule::new("!has(self.name) || !has(oldSelf.name) || self == oldSelf")
        .message(use_rules::LAYER_MESSAGE)
)]
pub struct LayerChoice {
    /// Name of a `DataLayer`. Cannot be changed. Default: the layer is dedicated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new(name_rules::IS_LAYER_NAME).message(name_rules::LAYER_NAME_MESSAGE))]
    pub name: Option<String>,
    /// Its namespace. A layer of another namespace must permit the use's (`access.namespaces`). Cannot be changed. Default: the
    /// use's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(name_rules::IS_NAMESPACE).message(name_rules::NAMESPACE_MESSAGE))]
    pub namespace: Option<String>,
    /// A layer of the use's own: a `DataLayer` with these fields, the purpose of the kind and no user `app`. A session store's is
    /// named NAME-sessions. It is deleted with the use; its volumes stay, unless `persistence.volume.reclaim` is `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<Box<DataLayerSpec>>,
}

/// The binding Secret of a use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UseBinding {
    /// Name of the binding Secret. Another owner's Secret is never overwritten: the use is then refused, or keeps the Secret that it
    /// has. After a change of the name, the Secret of the old name is deleted once the new one is written. Default:
    /// `NAME-session-binding`, `NAME-limit-binding` or `NAME-cache-binding`, by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(name_rules::is_object_name()).message(Message::Expression(name_rules::object_name_message("binding.secretName", "Secret"))))]
    pub secret_name: Option<String>,
}

/// The user of a use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UseAccess {
    /// A number to raise for new credentials: the binding Secret then shows a new user and password. The old ones stay valid
    /// until no client uses them. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rotation: Option<i32>,
    /// How long the old credentials stay valid at most, `0s` to `168h`. Then their user is removed, and its connections end. They
    /// end sooner once no client is connected with them, but not in the first 3 minutes, because mounted Secrets lag.
    /// Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("0s", "168h")).message(Message::Expression(quantity_rules::duration_message("access.rotationGrace", "0s", "168h", "1h"))))]
    pub rotation_grace: Option<Duration>,
    /// Whether the user may run Lua scripts of its own (`EVAL`, `EVALSHA`, `SCRIPT LOAD`), which some libraries bring. A script
    /// cannot touch another prefix, but one that does not end stops every use of the layer until it is killed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<bool>,
}
