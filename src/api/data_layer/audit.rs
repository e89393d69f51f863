//! What is done about keys without an expiry.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The audit of a layer's keys. The agent of a replica goes through all keys, over and over, in at most a twentieth of the server's
/// time; `status.audit` and each use's status say what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// What is done about keys without an expiry: `Report` counts them; `Repair` gives those under the prefix of a use the
    /// lifetime of that use, and leaves all others alone. Default: `Report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuditChoice>,
}

/// What is done about keys without an expiry: `Report` counts them; `Repair` gives those under the prefix of a use the lifetime of
/// that use, and leaves all others alone. Default: `Report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuditChoice {
    /// They are counted, and stay as they are.
    Report,
    /// Those under the prefix of a use are given an expiry: of a session store `absoluteLifetime`, of a rate limit policy the longest
    /// window, or the time in which a burst comes back if that is longer.
    Repair,
}
