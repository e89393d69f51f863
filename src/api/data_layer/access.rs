//! `spec.access`: who may use a layer, and by which addresses. The texts become descriptions in the CRD.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::metadata_rules;

/// Which namespaces may use the layer, which users it has, and what its nodes announce.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.external)").message("access.external is not implemented in this version"),
    validation = Rule::new("!has(self.announce) || self.announce == 'Address'").message("access.announce Hostname is not implemented in this version"),
    validation = Rule::new("!has(self.namespaces) || (has(self.namespaces.from) && self.namespaces.from == 'Selector') == has(self.namespaces.selector)")
        .message("access.namespaces.selector belongs to from: Selector, which needs it"),
    validation = Rule::new("!has(self.namespaces) || !has(self.namespaces.selector) || (has(self.namespaces.selector.matchLabels) && size(self.namespaces.selector.matchLabels) > 0) || (has(self.namespaces.selector.matchExpressions) && size(self.namespaces.selector.matchExpressions) > 0)")
        .message("access.namespaces.selector is empty, and so would let every namespace in: name labels in matchLabels, or write from: All")
)]
pub struct Access {
    /// Namespaces whose uses may name this layer. If access is withdrawn, their users are removed. Default: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AllowedNamespaces>,
    /// What nodes announce to clients and to each other: their address or a host name, which is not implemented in this version.
    /// Cannot be changed. Default: `Address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<Announce>,
    /// Access from outside of the cluster; not implemented in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Whether the layer has a user `app` for all keys, with a binding Secret `NAME-redis-app`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<bool>,
    /// Whether the layer has a user `admin` for people, with a binding Secret `NAME-redis-admin`, and what it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<AdministratorChoice>,
}

/// `Diagnostics`: look at servers and at names and sizes of keys. `Full`: that, and every command on keys.
/// Default: no user `admin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdministratorChoice {
    /// Look at servers and at names and sizes of keys.
    Diagnostics,
    /// That, and every command on keys.
    Full,
}

/// Namespaces that may name a layer, like Gateway API's allowed routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct AllowedNamespaces {
    /// `Same`: the layer's own; `All`; `Selector`: those whose labels `selector` matches. Default: `Same`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NamespaceChoice>,
    /// With `Selector`: labels of the namespaces. At most 20 expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = metadata_rules::bound_expressions)]
    #[x_kube(validation = Rule::new(metadata_rules::EXPRESSIONS_COMPARE).message("access.namespaces.selector: an operator is In or NotIn, with values, or Exists or DoesNotExist, without"))]
    pub selector: Option<LabelSelector>,
}

/// `Same`: the layer's own; `All`; `Selector`: those whose labels `selector` matches. Default: `Same`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespaceChoice {
    /// The namespace of the layer.
    Same,
    /// Every namespace of the cluster.
    All,
    /// Those that the selector matches.
    Selector,
}

/// What nodes announce to clients and to each other: their address or a host name, which is not implemented in this version.
/// Cannot be changed. Default: `Address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Announce {
    /// The fixed address of the node's Service.
    Address,
    /// A host name. Not implemented in this version.
    Hostname,
}

/// Access from outside of the cluster; not implemented in this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct External {}
