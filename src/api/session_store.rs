//! `SessionStore`: what an application needs of its login sessions.
//!
//! The texts of the fields become the descriptions in the CRD: they are written for operators. What one object alone can
//! tell is a CEL rule, so that `kubectl apply` itself says no; `validate::uses` says the same again, because an
//! object may have been stored before a rule was written.

use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::use_status::UseStatus;
use super::uses::{LayerChoice, UseAccess, UseBinding};
use super::{quantity_rules, use_rules};

/// A store of login sessions: a place in a data layer, session functions with its policy, a user and a binding Secret.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "SessionStore",
    doc = "A store of login sessions: session functions, a user and a binding Secret on a data layer.",
    plural = "sessionstores",
    shortname = "ss",
    category = "redoubt",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "UseStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it serves"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state", description = "What a person has to know first"),
    printcolumn(name = "Layer", type_ = "string", json_path = ".status.layer.path", description = "Namespace and name of the layer that serves it"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".status.admission.prefix", description = "What each of its keys begins with"),
    printcolumn(name = "Idle", type_ = "string", json_path = ".spec.idleTimeout"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".status.binding.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new(use_rules::IS_NAME).message(use_rules::name_message("sessions").as_str())
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new(quantity_rules::is_not_above("idleTimeout", "absoluteLifetime"))
        .message("idleTimeout must not be above absoluteLifetime: no session lives that long"),
    validation = Rule::new(quantity_rules::is_not_above("touchInterval", "idleTimeout"))
        .message("touchInterval must not be above idleTimeout: a session that is in use would end between two renewals"),
    validation = Rule::new("!has(self.onExceed) || has(self.maxPerUser)").message("onExceed needs maxPerUser"),
    validation = Rule::new(use_rules::replicas_confirm()).message(use_rules::REPLICAS_MESSAGE),
    validation = Rule::new(use_rules::PREFIX_STAYS)
        .message("keyPrefix cannot be changed: the sessions that there are would be lost"),
    validation = Rule::new(use_rules::LAYER_STAYS).message(use_rules::LAYER_MESSAGE),
    validation = Rule::new(use_rules::DEDICATED_STAYS).message(use_rules::DEDICATED_MESSAGE),
    validation = Rule::new(use_rules::ROTATION_GROWS).message(use_rules::ROTATION_MESSAGE),
    validation = Rule::new(use_rules::purpose_is("Sessions")).message("layer.dedicated.purpose of a session store is Sessions")
)]
pub struct SessionStoreSpec {
    /// Where the sessions are. Default: a layer of the store's own, as of `dedicated: {mode: Sentinel}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerChoice>,
    /// What each key of the store begins with: at most 64 letters, digits, '-', '_', '.' and ':', ending with ':'. No prefix of a layer
    /// may begin another. On another namespace's layer, the store's namespace and '/' come before it. Cannot be changed. Default:
    /// the store's name and ':'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(use_rules::IS_PREFIX).message(use_rules::PREFIX_MESSAGE))]
    pub key_prefix: Option<String>,
    /// A session that is not read for this long ends, such as `30m`; 1s to 8784h (a year).
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1s", "8784h")).message(Message::Expression(quantity_rules::duration_message("idleTimeout", "1s", "8784h", "30m"))))]
    pub idle_timeout: Duration,
    /// A session ends this long after its creation, however often it is read; 1s to 87840h. Default: 720h, the longest that
    /// NIST SP 800-63B allows without a new login, or `idleTimeout` if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1s", "87840h")).message(Message::Expression(quantity_rules::duration_message("absoluteLifetime", "1s", "87840h", "720h"))))]
    pub absolute_lifetime: Option<Duration>,
    /// Reads renew a session at most this often: each renewal is a write, on the replicas too. `0s`: each read. Default: a
    /// tenth of `idleTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("0s", "8784h")).message(Message::Expression(quantity_rules::duration_message("touchInterval", "0s", "8784h", "1m"))))]
    pub touch_interval: Option<Duration>,
    /// Live sessions that one user may have, 1 to 10,000. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_per_user: Option<i32>,
    /// What a login above `maxPerUser` does: `EvictOldest` ends the user's oldest session, `Reject` refuses the login.
    /// Default: `EvictOldest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exceed: Option<ExceedChoice>,
    /// Replicas that should confirm a revocation before the application takes it for done (`WAIT`): published in the binding
    /// as `wait-replicas`, 0 to 9; not more than the layer has. Default: 1 where the layer has replicas, otherwise 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub revoke_replicas: Option<i32>,
    /// Name and form of the Secret that an application mounts. Default: `NAME-session-binding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<UseBinding>,
    /// Rights and rotation of the user that calls the functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<UseAccess>,
}

/// What a login above `maxPerUser` does: `EvictOldest` ends the user's oldest session, `Reject` refuses the login.
/// Default: `EvictOldest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExceedChoice {
    /// The user's oldest sessions end.
    EvictOldest,
    /// The login is refused, and the sessions of the user stay.
    Reject,
}
