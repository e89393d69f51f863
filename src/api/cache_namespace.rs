//! `CacheNamespace`: copies of data that has its home elsewhere.
//!
//! The texts of the fields become the descriptions in the CRD: they are written for operators. What one object alone can tell is a
//! CEL rule; `validate::uses` says the same again, because an object may have been stored before a rule was written.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity_rules;
use super::use_rules;
use super::use_status::UseStatus;
use super::uses::{LayerChoice, UseAccess, UseBinding};

/// How a channel is written: a letter or digit first, so that it is none of the server's own, and no character that means something
/// in a pattern.
const IS_CHANNEL: &str = "self.matches('^[A-Za-z0-9][-A-Za-z0-9._:/]{0,191}$')";
/// The channel ends with the prefix. Only the object as a whole knows its name, from which the prefix comes where none is given.
const CHANNEL_ENDS_WITH_PREFIX: &str = "!has(self.spec.invalidation) || !has(self.spec.invalidation.channel) || self.spec.invalidation.channel.endsWith(has(self.spec.keyPrefix) ? self.spec.keyPrefix : self.metadata.name + ':')";
/// The channel stays: a tenant that came later may have a prefix that the new name would be under.
const CHANNEL_STAYS: &str = "(has(self.invalidation) && has(self.invalidation.channel) ? self.invalidation.channel : '') == (has(oldSelf.invalidation) && has(oldSelf.invalidation.channel) ? oldSelf.invalidation.channel : '')";

/// `negativeTtl` is not above `maxTtl`, or its default.
fn negative_is_not_above() -> String {
    let [ttl, most, negative] =
        ["self.ttl", "self.maxTtl", "self.negativeTtl"].map(quantity_rules::is_written_as_duration);
    format!(
        "!has(self.negativeTtl) || !{negative} || !{ttl} || (has(self.maxTtl) && !{most}) || duration(self.negativeTtl) <= \
         (has(self.maxTtl) ? duration(self.maxTtl) : (duration(self.ttl) > duration('24h') ? duration(self.ttl) : duration('24h')))"
    )
}

/// Bytes of an entry, from 1 to 2Mi.
const IS_ENTRY_SIZE: &str = "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1')) >= 0 && quantity(string(self)).compareTo(quantity('2Mi')) <= 0";

/// A cache: a place in a data layer, cache functions with its policy, a user and a binding Secret. It is no namespace of Kubernetes.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "CacheNamespace",
    doc = "A cache: functions that say who computes a value and what is stale, a user and a binding Secret on a data layer.",
    plural = "cachenamespaces",
    shortname = "cns",
    category = "redoubt",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "UseStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it serves"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state", description = "What a person has to know first"),
    printcolumn(name = "Layer", type_ = "string", json_path = ".status.layer.path", description = "Namespace and name of the layer that serves it"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".status.admission.prefix", description = "What each of its keys begins with"),
    printcolumn(name = "TTL", type_ = "string", json_path = ".spec.ttl"),
    printcolumn(name = "Stale", type_ = "string", json_path = ".spec.staleFor"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".status.binding.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new(use_rules::IS_NAME).message(use_rules::name_message("cache").as_str()),
    validation = Rule::new(CHANNEL_ENDS_WITH_PREFIX)
        .message("invalidation.channel must end with the key prefix (by default the name and ':'): the user may use no channel of another")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new(quantity_rules::is_not_above("ttl", "maxTtl"))
        .message("ttl must not be above maxTtl: every entry would be cut short"),
    validation = Rule::new(negative_is_not_above())
        .message("negativeTtl must not be above maxTtl (default: ttl, at least 24h)"),
    validation = Rule::new(use_rules::PREFIX_STAYS).message("keyPrefix cannot be changed: the entries that there are would be lost"),
    validation = Rule::new(use_rules::LAYER_STAYS).message(use_rules::LAYER_MESSAGE),
    validation = Rule::new(use_rules::DEDICATED_STAYS).message(use_rules::DEDICATED_MESSAGE),
    validation = Rule::new(use_rules::ROTATION_GROWS).message(use_rules::ROTATION_MESSAGE),
    validation = Rule::new(use_rules::purpose_is("Cache")).message("layer.dedicated.purpose of a cache is Cache"),
    validation = Rule::new(CHANNEL_STAYS)
        .message("invalidation.channel cannot be changed: subscribers would receive nothing any more; make a new cache"),
    validation = Rule::new("!has(self.onBudget) || has(self.memoryBudget)")
        .message("onBudget needs memoryBudget: without one there is nothing to be above")
)]
pub struct CacheNamespaceSpec {
    /// Where the entries are. Default: a layer of the cache's own, as of `dedicated: {mode: Sentinel}`, named NAME-cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerChoice>,
    /// What each key of the cache begins with: at most 64 letters, digits, '-', '_', '.' and ':', ending with ':'. No prefix of a layer
    /// may begin another. On another namespace's layer, the cache's namespace and '/' come before it. Cannot be changed. Default:
    /// the cache's name and ':'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(use_rules::IS_PREFIX).message(use_rules::PREFIX_MESSAGE))]
    pub key_prefix: Option<String>,
    /// How long an entry is fresh, unless the call that sets it has a TTL of its own, such as `5m`; 1ms to 8784h (a year).
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1ms", "8784h")).message(Message::Expression(quantity_rules::duration_message("ttl", "1ms", "8784h", "5m"))))]
    pub ttl: Duration,
    /// How long any entry is fresh at most: a longer TTL in a call is cut to it; 1ms to 8784h. Default: `24h`, or `ttl` if that is
    /// longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1ms", "8784h")).message(Message::Expression(quantity_rules::duration_message("maxTtl", "1ms", "8784h", "24h"))))]
    pub max_ttl: Option<Duration>,
    /// Share of each TTL, in percent, that chance takes off at most, so that entries that were set together do not end together; 0
    /// to 90. It only shortens. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 90))]
    pub jitter: Option<i32>,
    /// How long an entry is still served after its TTL, while one caller computes a new value or the source is down; `0s` to `8784h`.
    /// After that it is gone. Default: `0s`, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("0s", "8784h")).message(Message::Expression(quantity_rules::duration_message("staleFor", "0s", "8784h", "1h"))))]
    pub stale_for: Option<Duration>,
    /// How long the cache keeps that there is no value; `0s` to `maxTtl`. `0s`: a call that stores it is refused. Default: `5s`, or
    /// `ttl` if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("0s", "8784h")).message(Message::Expression(quantity_rules::duration_message("negativeTtl", "0s", "8784h", "5s"))))]
    pub negative_ttl: Option<Duration>,
    /// For how long one caller computes a value before another may, and how long a source that failed is left alone; 10ms to 10m.
    /// Longer than a computation takes. Default: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("10ms", "10m")).message(Message::Expression(quantity_rules::duration_message("leaseTimeout", "10ms", "10m", "5s"))))]
    pub lease_timeout: Option<Duration>,
    /// How early a value is computed again before its TTL ends, by chance and the sooner the longer it took (XFetch), in percent of
    /// the usual; 0 to 1,000. 0: never early. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub early_refresh: Option<i32>,
    /// Bytes of one value at most, 1 to 2Mi: a larger one is refused. A server passes 2Mi through Lua in some 4 ms, and serves
    /// no other call meanwhile. Default: `1Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(IS_ENTRY_SIZE).message("maxEntryBytes must be from 1 to 2Mi, such as 256Ki"))]
    pub max_entry_bytes: Option<Quantity>,
    /// Bytes that the keys under the prefix may take together, at least 1Mi, such as `256Mi`. The audit of the layer measures them, by a
    /// sample. It reserves nothing. Default: as much as the layer has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_bytes("1Mi")).message(Message::Expression(quantity_rules::bytes_message("memoryBudget", "1Mi", "1Mi or more"))))]
    pub memory_budget: Option<Quantity>,
    /// What is done where they take more: `Report` shows it in the status; `Shrink` also removes keys, those nearest to their end
    /// first. Default: `Report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_budget: Option<OnBudget>,
    /// How processes with copies of their own learn that an entry is no longer valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation: Option<Invalidation>,
    /// Name and form of the Secret that an application mounts. Default: `NAME-cache-binding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<UseBinding>,
    /// Rights and rotation of the user that calls the functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<UseAccess>,
}

/// What is done where the keys take more than `memoryBudget`: `Report` shows it in the status; `Shrink` also removes keys, those
/// nearest to their end first. Default: `Report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnBudget {
    /// It is shown: in status, as a metric, and by an alert.
    #[default]
    Report,
    /// The agent of the primary also removes keys, those nearest to their end first, in a small share of the server's time.
    Shrink,
}

/// How processes with copies of their own learn that an entry is no longer valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invalidation {
    /// Channel on which each invalidation is published: at most 192 letters, digits, '-', '_', '.', ':' and '/', with the key prefix at
    /// its end. On another namespace's layer, the cache's namespace and '/' come before the prefix.
    /// Cannot be changed. Default: `cache:invalidate:` and the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 192))]
    #[x_kube(validation = Rule::new(IS_CHANNEL)
        .message("channel must begin with a letter or digit and hold only letters, digits, '-', '_', '.', ':' and '/'"))]
    pub channel: Option<String>,
    /// Whether the user may have the server track keys (`CLIENT TRACKING`). In broadcast mode that shows the names of all keys of the
    /// layer: so only on a layer that has no other use and no user for all keys (`access.application: false`). Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<bool>,
}
