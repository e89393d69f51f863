//! What is reported of a use, whatever its kind. Nothing in it moves while nothing changes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data_layer_status::BindingReference;

/// What was proven on the live servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UseStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word: `Ready`, or the most important reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The sentence that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Accepted`, `FunctionsLoaded`, `UserInPlace`, `AccessProven`, `BindingWritten`, `EvictionSuits`, `Ready`, `Progressing`, `Degraded`;
    /// `Reconciling` or `Stalled` while one of them is true, for tools that wait by `kstatus`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// The layer that it names, or the dedicated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerReference>,
    /// The Secret that an application mounts; absent: nothing was written yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingReference>,
    /// Of a rate limit policy: the Secret for a rate limit service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<BindingReference>,
    /// The policy that the functions on the primary follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<FunctionsStatus>,
    /// Name of the user that the binding shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which rotation of its credentials the binding shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// The place in the layer that it was admitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// Of a rate limit policy: what its limits amount to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitStatus>,
    /// Of a rate limit policy its limits, of a function library its functions, by name: what `kubectl get` shows, at most three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// What its functions counted since the layer's pods started, in steps of two significant digits; looked at once a minute. `/metrics`
    /// of the pods has the numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<CounterStatus>,
    /// Of a cache: reads among all that its functions counted that found something (a fresh value, a stale one, or that there is none),
    /// percent. It stays while it is right within 5; absent before the first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<i32>,
    /// Of a cache: the removal of the keys that its annotation `redoubt.dev/invalidate-prefix` names, and how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation: Option<InvalidationStatus>,
    /// What the audit of the layer's keys found under its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<UseAudit>,
    /// Of a cache with `memoryBudget`: how its keys compare with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetStatus>,
    /// Of a function library: the functions that the primary has of it. The users of the other uses of its namespace on the layer may
    /// call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub function_names: Vec<FunctionStatus>,
    /// Of a function library: engine and version of the primary that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// Which rotations of a use's credentials are valid. It tells so where the binding Secret was deleted or edited by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// `access.rotation` of the credentials that the binding shows.
    pub shown: i32,
    /// That of the credentials before, while they are still valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<i32>,
    /// Since when the binding shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<MicroTime>,
}

/// What was counted of a use, or of one of its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CounterStatus {
    /// Name of the limit; absent: the numbers are the use's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Numbers by what they count: of a limit `allowed`, `denied` and `shadowed`; of a session store `created`, `read`, `renewed`,
    /// `revoked`, `rejected`, `evicted` and `missed`.
    pub counts: BTreeMap<String, i64>,
}

/// What the last whole pass over the layer's keys found under the prefix of a use. Numbers move in steps: they stay as long as they are
/// about right, and 0 is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UseAudit {
    /// Keys under the prefix of the use.
    pub keys: i64,
    /// Keys under the prefix without an expiry.
    pub without_expiry: i64,
    /// Bytes, estimated from a sample.
    pub bytes: i64,
    /// With a probability of 95 % the true sum is at most this far from what was estimated.
    pub bytes_error: i64,
}

/// How what a cache takes compares with what it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetStatus {
    /// Value of `memoryBudget`, in bytes.
    pub bytes: i64,
    /// By the last whole pass of the audit.
    pub state: BudgetState,
}

/// How the keys of a cache compare with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BudgetState {
    /// No pass has measured them yet.
    Unknown,
    /// They take no more than the budget, as far as the error of the sample lets tell.
    Within,
    /// They take more than the budget, even if the estimate is off by its error; said until the estimate is within it.
    Above,
}

/// A function of a function library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// The name that `FCALL` takes.
    pub name: String,
    /// Whether it has the flag `no-writes`, so that `FCALL_RO` calls it too, on replicas as well.
    pub reads_only: bool,
}

/// What one limit of a policy admits at most, computed from its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// `name` of the limit in the specification.
    pub name: String,
    /// The cost that is admitted at most within any interval of one window. A failover adds what was not replicated yet, and a clock
    /// that is set forward adds a burst or quota.
    pub worst_case: i64,
    /// Of a `Shaper`: how many calls of cost 1 begin at most within any interval of one window, if callers wait for `retry_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_case_started: Option<i64>,
    /// Microseconds in which one unit of cost becomes free again, rounded up; with `shards` for each of the keys.
    pub interval_microseconds: i64,
}

/// Keys of a cache that are to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvalidationStatus {
    /// What the names of the keys begin with: the value of the annotation.
    pub beginning: String,
    /// The job on the primary, a field of the hash `PREFIX{@jobs}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// `Waiting`, `Running`, `Done`; `Refused`: the annotation does not begin with the cache's prefix, or is above 1,024 bytes.
    pub state: InvalidationState,
    /// Keys that the job has removed so far.
    pub removed: i64,
    /// Jobs that the primary did not have any more before they were done, each of which was asked for again: it died before the job was
    /// replicated, or the job was deleted. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<i64>,
}

impl InvalidationStatus {
    pub(crate) fn of(beginning: &str, job: Option<String>, state: InvalidationState, removed: i64) -> Self {
        Self { beginning: beginning.to_owned(), job, state, removed, lost: None }
    }
}

/// How far the removal of keys is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InvalidationState {
    /// The agent of the primary has not begun with it.
    Waiting,
    /// The agent of the primary is at it.
    Running,
    /// Every key that was there when it was asked for is gone.
    Done,
    /// What is asked for is not the cache's.
    Refused,
}

/// The place in a layer that a use was admitted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Admission {
    /// `metadata.namespace` of the layer.
    pub namespace: String,
    /// `metadata.name` of the layer.
    pub name: String,
    /// What each of its keys begins with.
    pub prefix: String,
    /// When it got its place.
    pub since: Time,
}

/// The `DataLayer` that serves a use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerReference {
    /// `metadata.namespace` of the layer.
    pub namespace: String,
    /// `metadata.name` of the layer.
    pub name: String,
    /// Namespace and name in one: `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl LayerReference {
    /// The reference to the layer of this name in this namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        Self { path: format!("{namespace}/{name}"), namespace, name }
    }
}

/// The policy that the functions on the primary follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionsStatus {
    /// Name of the library on the servers (`FUNCTION LIST`).
    pub library: String,
    /// Digest of the policy as it was compiled into the library; of a function library that of its source.
    pub digest: String,
    /// `metadata.generation` that it was made from.
    pub generation: i64,
}
