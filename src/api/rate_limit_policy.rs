//! `RateLimitPolicy`: how often something may be done.
//!
//! The texts of the fields become the descriptions in the CRD: they are written for operators. What one object alone can tell is a
//! CEL rule; `model::limit_policy` judges the same numbers again, because an object may have been stored before a rule was written.

use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity_rules;
use super::use_rules;
use super::use_status::UseStatus;
use super::uses::{LayerChoice, UseAccess, UseBinding};

/// A limit's window in milliseconds, in CEL.
const WINDOW: &str = "duration(self.window).getMilliseconds()";

/// A rule about the window of a limit, which must be readable first.
fn of_window(rule: &str) -> String {
    format!("!{} || {}", quantity_rules::is_written_as_duration("self.window"), rule.replace("WINDOW", WINDOW))
}

/// Limits of how often something may be done: a place in a data layer, limiter functions with its limits, a user and a binding Secret.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "RateLimitPolicy",
    doc = "Limits on how often something is done: functions that decide, a user and a binding Secret on a data layer.",
    plural = "ratelimitpolicies",
    shortname = "rlp",
    category = "redoubt",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "UseStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it serves"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state", description = "What a person has to know first"),
    printcolumn(name = "Layer", type_ = "string", json_path = ".status.layer.path", description = "Namespace and name of the layer that serves it"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".status.admission.prefix", description = "What each of its keys begins with"),
    printcolumn(name = "Limits", type_ = "string", json_path = ".status.names"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".status.binding.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new(use_rules::IS_NAME).message(use_rules::name_message("limits").as_str())
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new(use_rules::PREFIX_STAYS).message("keyPrefix cannot be changed: what is counted would be lost"),
    validation = Rule::new(use_rules::LAYER_STAYS).message(use_rules::LAYER_MESSAGE),
    validation = Rule::new(use_rules::DEDICATED_STAYS).message(use_rules::DEDICATED_MESSAGE),
    validation = Rule::new(use_rules::ROTATION_GROWS).message(use_rules::ROTATION_MESSAGE),
    validation = Rule::new(use_rules::purpose_is("RateLimits"))
        .message("layer.dedicated.purpose of a rate limit policy is RateLimits"),
    validation = Rule::new("!has(self.shards) || self.limits.all(limit, limit.quota >= self.shards && (!has(limit.burst) || limit.burst >= self.shards))")
        .message("shards must not be above the quota or burst of any limit: a shard would admit nothing"),
    validation = Rule::new("!has(self.export) || self.export.program != 'Limitador' || (has(self.keyPrefix) && self.keyPrefix == 'namespace:' && has(self.access) && has(self.access.scripts) && self.access.scripts)")
        .message("export.program Limitador needs keyPrefix 'namespace:', which is what Limitador's keys begin with, and access.scripts true")
)]
pub struct RateLimitPolicySpec {
    /// Where the counters are. Default: a layer of the policy's own, as of `dedicated: {mode: Sentinel}`, named NAME-limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerChoice>,
    /// What each key of the policy begins with: at most 64 letters, digits, '-', '_', '.' and ':', ending with ':'. No prefix of a layer
    /// may begin another. On another namespace's layer, the policy's namespace and '/' come before it. Cannot be changed. Default:
    /// the policy's name and ':'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(use_rules::IS_PREFIX).message(use_rules::PREFIX_MESSAGE))]
    pub key_prefix: Option<String>,
    /// The limits, 1 to 16. A call that names none is decided by all of them together: it consumes of each, or of none.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub limits: Vec<Limit>,
    /// `Shadow`: every limit counts and reports, and none denies. Default: `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LimitMode>,
    /// What an application should do while the layer does not answer: published in the binding as `on-store-error`. Default: `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_store_error: Option<StoreErrorChoice>,
    /// Whether a denied call fills up the limits that denied it, so that a caller that goes on calling stays out. Default: false, and a
    /// denied call writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_denied: Option<bool>,
    /// Keys of each subject, 1 to 64, each with an equal part of quota and burst. A caller picks one: `PREFIX{SUBJECT:R}`, R random
    /// from 0. Near the limit about sqrt(quota x shards / 6.3) calls of a window are denied too early; never are too many admitted.
    /// Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub shards: Option<i32>,
    /// Name and form of the Secret that an application mounts. Default: `NAME-limit-binding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<UseBinding>,
    /// Rights and rotation of the user that calls the functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<UseAccess>,
    /// Keeps the Secret NAME-limit-export for a gateway's rate limit service, which counts in its own way with the policy's user under
    /// the policy's prefix. Default: no such Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportChoice>,
}

/// A Secret for a rate limit service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportChoice {
    /// Which service reads the Secret. `EnvoyRateLimit`, which Envoy Gateway runs: `REDIS_URL`, `REDIS_AUTH` and `CACHE_KEY_PREFIX`.
    /// `Limitador`: `URL`; it names its keys itself and counts by scripts, so `keyPrefix` is `namespace:` and `access.scripts` is true.
    pub program: ExportProgram,
}

/// A program that counts for a gateway, and reads its Redis from the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExportProgram {
    /// Envoy's, [envoyproxy/ratelimit](https://github.com/envoyproxy/ratelimit).
    EnvoyRateLimit,
    /// Kuadrant's, [limitador](https://github.com/Kuadrant/limitador).
    Limitador,
}

/// How much is admitted in how long, and by which algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(of_window("self.quota <= 100 * WINDOW"))
        .message("quota is above 100 for each millisecond of the window: it could not be counted exactly"),
    validation = Rule::new("!has(self.burst) || !has(self.algorithm) || self.algorithm in ['GCRA', 'TokenBucket', 'LeakyBucket']")
        .message("burst is only for GCRA, TokenBucket and LeakyBucket"),
    validation = Rule::new(of_window("!has(self.burst) || double(self.burst) * double(WINDOW) / double(self.quota) <= 31622400000.0"))
        .message("burst takes longer than 8784h (a year) to come back at this quota"),
    validation = Rule::new("!has(self.leaky) || (has(self.algorithm) && self.algorithm == 'LeakyBucket')")
        .message("leaky is only for LeakyBucket"),
    validation = Rule::new(of_window("!has(self.leaky) || self.leaky != 'Shaper' || WINDOW >= self.quota"))
        .message("a Shaper starts at most one call in a millisecond: make the window longer or the quota smaller"),
    validation = Rule::new("!has(self.align) || (has(self.algorithm) && self.algorithm == 'FixedWindow')")
        .message("align is only for FixedWindow"),
    validation = Rule::new("!has(self.maxEntries) || (has(self.algorithm) && self.algorithm == 'SlidingLog')")
        .message("maxEntries is only for SlidingLog"),
    validation = Rule::new("!has(self.algorithm) || self.algorithm != 'SlidingLog' || self.quota <= (has(self.maxEntries) ? self.maxEntries : 1000)")
        .message("quota of a SlidingLog is above maxEntries (default 1000): each admitted call is an entry; take GCRA or SlidingCounter for large quotas"),
    validation = Rule::new(of_window("!has(self.algorithm) || self.algorithm != 'SlidingCounter' || double(self.quota) * double(WINDOW) <= 3000000000000.0"))
        .message("quota x window of a SlidingCounter is too large to be counted exactly: at most 3,000,000,000,000 with the window in milliseconds")
)]
pub struct Limit {
    /// Its name, by which calls may choose it: a-z, 0-9 and '-', at most 32 characters.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$')")
        .message("name must hold only a-z, 0-9 and '-', begin and end with a letter or digit, and be at most 32 characters"))]
    pub name: String,
    /// How it counts. Most calls that any interval of one window can admit, with Q the quota and B the burst: `GCRA`,
    /// `TokenBucket` and `LeakyBucket` B + Q, of which a `Shaper` lets Q + 1 of cost 1 begin; `SlidingLog` Q; `SlidingCounter` 2Q - 1;
    /// `FixedWindow` 2Q. `status.limits[].worstCase` says it for these numbers, and `worstCaseStarted` what begins. Default: `GCRA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<LimitAlgorithm>,
    /// What is admitted in a window, 1 to 1,000,000,000, at most 100 for each millisecond.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub quota: i64,
    /// The window, such as `1m`; 1ms to 8784h (a year), whole milliseconds.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1ms", "8784h")).message(Message::Expression(quantity_rules::duration_message("window", "1ms", "8784h", "1m"))))]
    pub window: Duration,
    /// What is admitted at once after a time without calls, at least 1; for `GCRA`, `TokenBucket` and `LeakyBucket`. Default: the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// Of a `LeakyBucket`: `Meter` admits at once while there is room; `Shaper` answers how long to wait before each call. Default:
    /// `Meter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaky: Option<LeakyChoice>,
    /// Of a `FixedWindow`: windows follow the `Clock` or begin at the `FirstHit`. Default: `Clock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<AlignChoice>,
    /// Of a `SlidingLog`: entries that one key may hold, 1 to 10,000. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_entries: Option<i32>,
    /// `Shadow`: the limit counts and reports, and does not deny. Default: as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LimitMode>,
}

/// How a limit counts. Most calls in any window, with quota Q and burst B: `GCRA`, `TokenBucket` and `LeakyBucket` B + Q,
/// `SlidingLog` Q, `SlidingCounter` 2Q - 1, `FixedWindow` 2Q. `status.limits[].worstCase` has the number, and `worstCaseStarted` how
/// many a `Shaper` lets begin. Default: `GCRA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitAlgorithm {
    /// The generic cell rate algorithm: one time for each key; a steady rate with a burst.
    #[serde(rename = "GCRA")]
    Gcra,
    /// A bucket that refills at a steady rate.
    TokenBucket,
    /// A bucket that drains at a steady rate.
    LeakyBucket,
    /// Every admitted call is remembered for a window: exact, and the dearest.
    SlidingLog,
    /// Two counters, the one before weighted by how much of it is still in the window.
    SlidingCounter,
    /// A counter that begins again with each window.
    FixedWindow,
}

/// `Enforce`: it denies. `Shadow`: it counts and reports, and does not deny. Default of a policy: `Enforce`; of a limit: that of
/// the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitMode {
    /// A call above the limit is denied.
    Enforce,
    /// A call above the limit is counted as `shadowed`, and admitted.
    Shadow,
}

/// Of a `LeakyBucket`: `Meter` admits at once while there is room; `Shaper` answers how long to wait before each call. Default:
/// `Meter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeakyChoice {
    /// A call is admitted at once while the bucket has room for its cost.
    Meter,
    /// A call is admitted with the milliseconds that its caller waits before it begins.
    Shaper,
}

/// Of a `FixedWindow`: windows follow the `Clock` or begin at the `FirstHit`. Default: `Clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlignChoice {
    /// At multiples of the window since the Unix epoch.
    Clock,
    /// At the first call of a subject after its last window ended.
    FirstHit,
}

/// What an application should do while the layer does not answer: published in the binding as `on-store-error`. Default: `Allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreErrorChoice {
    /// It admits the call.
    Allow,
    /// It denies the call.
    Deny,
}
