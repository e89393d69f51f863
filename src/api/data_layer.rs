//! `DataLayer`: one deployment of Redis or Valkey.
//!
//! The texts of the fields become the descriptions in the CRD: they are written for operators. What one object alone can
//! tell is a CEL rule, so that `kubectl apply` itself says no. The schema of an optional enumeration shows its type's text, not
//! its field's: so both are the same.

mod access;
mod audit;
mod pods;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::access::{Access, AdministratorChoice, NamespaceChoice};
pub(crate) use self::audit::{Audit, AuditChoice};
pub(crate) use self::pods::{ApprovalPolicy, PodMetadata, Scheduling, Update};
use super::data_layer_status::DataLayerStatus;
use super::{config_rules, guarded_rules, name_rules, quantity_rules};

/// A deployment of Redis or Valkey: pods, volumes, services, users, configuration, disruption budget.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "DataLayer",
    doc = "A deployment of Redis or Valkey: pods, volumes, Services, users, settings.",
    plural = "datalayers",
    shortname = "dl",
    category = "redoubt",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "DataLayerStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it serves"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state", description = "What a person has to know first"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Shards", type_ = "string", json_path = ".status.shards", description = "Shards of mode Cluster whose slots a primary owns, of those that are declared", priority = 1),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.replicasInSync", description = "Replicas in sync, of those that are declared"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.memory.used", description = "Share of maxmemory in use, in steps of 10 %"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter, hold only a-z, 0-9 and '-', and be at most 40 characters: Services and pods are named after it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("self.mode == 'Cluster' || !has(self.shards)").message("shards belongs to mode Cluster"),
    validation = Rule::new("self.mode != 'Cluster' || !has(self.failover) || !(has(self.failover.sentinels) || has(self.failover.quorum) || has(self.failover.sentinelVolume))")
        .message("failover.sentinels, failover.quorum and failover.sentinelVolume belong to mode Sentinel: in mode Cluster the primaries elect"),
    validation = Rule::new("(has(self.shards) ? self.shards : 3) == (has(oldSelf.shards) ? oldSelf.shards : 3)")
        .message("shards cannot be changed in this version: slots are not moved between primaries yet"),
    validation = Rule::new("!has(self.tls)").message("tls is not implemented in this version"),
    validation = Rule::new("!has(self.bootstrap)").message("bootstrap is not implemented in this version"),
    validation = Rule::new("self.mode != 'Sentinel' || !has(self.replicas) || self.replicas >= 1")
        .message("mode Sentinel needs at least 1 replica: without one there is no node to fail over to (mode Standalone is one node)"),
    validation = Rule::new("self.mode != 'Standalone' || !has(self.replicas) || self.replicas == 0")
        .message("mode Standalone has no replicas; use mode Sentinel"),
    validation = Rule::new("self.mode != 'Standalone' || !has(self.failover)").message("mode Standalone has no failover; use mode Sentinel"),
    validation = Rule::new("!has(self.durability) || !has(self.durability.minReplicasToWrite) || self.durability.minReplicasToWrite == 0 || self.durability.minReplicasToWrite < (has(self.replicas) ? self.replicas : (self.mode == 'Sentinel' ? 2 : 1))")
        .message("durability.minReplicasToWrite must be below replicas (0 at one replica): otherwise each restart of a replica stops all writes"),
    validation = Rule::new("!has(self.memory) || !has(self.memory.evictionPolicy) || !self.memory.evictionPolicy.startsWith('allkeys-') || (has(self.purpose) && self.purpose == 'Cache')")
        .message("memory.evictionPolicy allkeys-* is only for purpose Cache: measured, a cache flood left 34 of 20,000 sessions under allkeys-lru"),
    validation = Rule::new("!has(self.memory) || !has(self.memory.evictionPolicy) || (has(self.purpose) && self.purpose != 'Mixed') || !(self.memory.evictionPolicy in ['volatile-lru', 'volatile-lfu', 'volatile-random'])")
        .message("memory.evictionPolicy of purpose Mixed (the default) must be noeviction or volatile-ttl: measured, a cache flood left 18 of 20,000 sessions under volatile-lru"),
    validation = Rule::new(guarded_rules::at_creation(quantity_rules::volume_holds_the_data("self"))).optional_old_self(true)
        .message(Message::Expression(quantity_rules::volume_message())),
    validation = Rule::new("self.mode == oldSelf.mode").message("mode cannot be changed"),
    validation = Rule::new(name_rules::storage_class_stays())
        .message("persistence.volume.storageClassName cannot be changed: the volumes are there already"),
    validation = Rule::new("!has(oldSelf.engine) || !has(oldSelf.engine.image) || (has(self.engine) && has(self.engine.image))")
        .message("engine.image cannot be removed once it is set: the layer would go back to the image that was recorded when it was made, which may not read the files. Name the image to run"),
    validation = Rule::new("(has(self.access) && has(self.access.announce) ? self.access.announce : 'Address') == (has(oldSelf.access) && has(oldSelf.access.announce) ? oldSelf.access.announce : 'Address')")
        .message("access.announce cannot be changed")
)]
pub struct DataLayerSpec {
    /// How it is deployed. `Standalone`: one node, for development and disposable caches. `Sentinel`: one primary, replicas
    /// and Sentinels that elect. `Cluster`: several primaries that share the keys, each with replicas; uses have no place on it in this
    /// version. Cannot be changed.
    pub mode: DeploymentMode,
    /// What the data is for; it picks the defaults of eviction, persistence and durability. `AgentContext`: conversations and
    /// features of software agents. `Mixed`: several of these. Default: `Mixed`, the safest of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<DataPurpose>,
    /// Which server program runs, and how its image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Replicas of the primary, in mode `Cluster` of each, 0 to 9. Default: 2 in mode `Sentinel`, 1 in mode `Cluster`, 0 in mode
    /// `Standalone`. The `scale` subresource, and so an autoscaler, needs it written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub replicas: Option<i32>,
    /// Primaries of mode `Cluster`, 1 to 500. With fewer than 3 no other node takes over from one that is lost together with its agent.
    /// Cannot be changed in this version. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub shards: Option<i32>,
    /// Memory: the pod's limit, and how much of it is for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// CPU request of each data pod, 1m to 1000. There is no limit: throttling shows as latency. Default: 100m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::IS_PROCESSORS).message(Message::Expression(quantity_rules::PROCESSORS_MESSAGE.to_owned())))]
    pub cpu: Option<Quantity>,
    /// What survives a restart: append-only file, snapshots, volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// How many replicas must be connected for the primary to take writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// How the loss of a primary is found and decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Who may use it, and by which addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Connection limit over all uses and users of the layer, 10 to 100,000. Each connection takes 40 KiB of `memory.limit`.
    /// Default: 1,000, or fewer where `memory.limit` is small; `max-connections` of the binding has the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 100_000))]
    pub max_connections: Option<i32>,
    /// Encryption of connections; not implemented in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The audit of the layer's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Further directives of `redis.conf`, at most 50. Memory may have units (`64mb`). What a running server takes is set live; the
    /// rest, and unknown directives, roll the pods. Directives that a field or Redoubt sets, and wrong values, are refused. A
    /// removed one keeps its value until the next restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 50), transform = config_rules::one_rule_each)]
    #[x_kube(
        validation = Rule::new(config_rules::name_is_a_word()).message(Message::Expression(config_rules::name_message())),
        validation = Rule::new(config_rules::VALUE_IS_PRINTABLE).message("config: a value is printable characters without quotes, backslashes and line breaks"),
        validation = Rule::new(config_rules::value_is_one_word()).message(Message::Expression(config_rules::words_message()))
    )]
    pub config: Option<BTreeMap<String, DirectiveValue>>,
    /// Where pods may run: zones, node labels, tolerations, priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Labels and annotations to add to each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,
    /// How changes that restart pods are carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// While true, Redoubt observes and reports, and changes nothing. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Data to begin with; not implemented in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
}

/// Value of a directive, at most 256 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DirectiveValue(#[schemars(length(max = 256))] pub String);

/// Which servers a layer has, and who elects its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeploymentMode {
    /// One node: a restart is an outage.
    Standalone,
    /// One primary, replicas, and Sentinels that elect another primary.
    Sentinel,
    /// Several primaries that share the slots, each with replicas.
    Cluster,
}

impl DeploymentMode {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Standalone => "Standalone",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
        }
    }

    /// Replicas of a layer that declares none.
    pub(crate) const fn default_replicas(self) -> u8 {
        match self {
            Self::Standalone => 0,
            Self::Sentinel => 2,
            Self::Cluster => 1,
        }
    }
}

/// What the data is for; it picks the defaults of eviction, persistence and durability. `AgentContext`: conversations and
/// features of software agents. `Mixed`: several of these. Default: `Mixed`, the safest of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataPurpose {
    /// Login sessions: nothing is evicted, and data survives restarts.
    Sessions,
    /// Rate limit counters: the keys that end first are evicted, and nothing survives a restart.
    RateLimits,
    /// Copies of data that has its home elsewhere.
    Cache,
    /// Conversations, features and vectors of agents.
    AgentContext,
    /// Several of these: nothing is evicted, and data survives restarts.
    Mixed,
}

impl DataPurpose {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Sessions => "Sessions",
            Self::RateLimits => "RateLimits",
            Self::Cache => "Cache",
            Self::AgentContext => "AgentContext",
            Self::Mixed => "Mixed",
        }
    }
}

/// The server program, as an image with `redis-server` or `valkey-server`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Image of Redis 7.0 or later, or Valkey 7.2 or later, with `redis-server` or `valkey-server` in its path. Default: the
    /// operator's; recorded for the layer at its creation. Once set it cannot be removed. An engine that cannot read the files of
    /// the running one is not rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new(name_rules::is_image()).message(Message::Expression(name_rules::IMAGE_MESSAGE.to_owned())))]
    pub image: Option<String>,
    /// When the image is pulled. Default: Kubernetes' own rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets for pulling the image, at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), transform = name_rules::bound_names)]
    #[x_kube(validation = Rule::new(name_rules::name_objects()).message("engine.pullSecrets: a name is that of a Secret: lower-case letters, digits, - and ."))]
    pub pull_secrets: Option<Vec<LocalObjectReference>>,
}

/// When the image is pulled. Default: Kubernetes' own rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start of a container.
    Always,
    /// If the Kubernetes node has no copy of it.
    IfNotPresent,
    /// Never: the Kubernetes node has to have it.
    Never,
}

impl PullPolicy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Memory of each data pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The pod's memory limit, bytes; at the defaults at least 73Mi, 92Mi for purpose `Cache`. A lower one is carried out only if
    /// the data fits. Default: 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_bytes("16Mi")).message(Message::Expression(quantity_rules::bytes_message("memory.limit", "16Mi", quantity_rules::ENOUGH_MEMORY))))]
    pub limit: Option<Quantity>,
    /// Share of the limit that data may take (`maxmemory`), 10 to 90 percent. The rest is for connections, the
    /// buffers of clients and replicas, copies while saving, and fragmentation. Default by purpose: 50, rate limits 55, cache 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 90))]
    pub maxmemory_percent: Option<i32>,
    /// What to evict when memory is full. Default: `allkeys-lfu` for purpose `Cache`, `volatile-ttl` for `RateLimits`, `noeviction` for all
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_policy: Option<EvictionPolicy>,
}

/// What to evict when memory is full. Default: `allkeys-lfu` for purpose `Cache`, `volatile-ttl` for `RateLimits`, `noeviction` for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvictionPolicy {
    /// Nothing: writes fail with `OOM`.
    Noeviction,
    /// Any key, least recently used first.
    AllkeysLru,
    /// Any key, least frequently used first.
    AllkeysLfu,
    /// Any key, at random.
    AllkeysRandom,
    /// Keys with a TTL, least recently used first.
    VolatileLru,
    /// Keys with a TTL, least frequently used first.
    VolatileLfu,
    /// Keys with a TTL, at random.
    VolatileRandom,
    /// Keys with a TTL, shortest first.
    VolatileTtl,
}

impl EvictionPolicy {
    /// The value of `maxmemory-policy`.
    pub(crate) const fn directive(self) -> &'static str {
        match self {
            Self::Noeviction => "noeviction",
            Self::AllkeysLru => "allkeys-lru",
            Self::AllkeysLfu => "allkeys-lfu",
            Self::AllkeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}

/// What survives a restart: the append-only file, snapshots, and the volume that holds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Append-only file, written to disk every second. Default: on, but off for rate limits and caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_only: Option<bool>,
    /// Hourly snapshots. Default: as the append-only file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<bool>,
    /// Size and storage class of the volume of each data pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
}

/// Size and storage class of the volume of each data pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Size, bytes; at least twice `maxmemory` where data is kept, because the files are twice as large while they are rewritten.
    /// Default: four times `memory.limit`, at least 1Gi. Recorded when the layer is made, and unchanged if the field is removed
    /// later. A `memory.limit` that outgrows it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = Rule::new(quantity_rules::is_bytes(quantity_rules::LEAST_VOLUME)).message(Message::Expression(quantity_rules::bytes_message("persistence.volume.size", quantity_rules::LEAST_VOLUME, "as much as memory.limit or more"))),
        validation = Rule::new(quantity_rules::BYTES_STAY).message("persistence.volume.size cannot be changed in this version: it never shrinks, and growing is not implemented yet")
    )]
    pub size: Option<Quantity>,
    /// Storage class, at most 253 characters. Default: the cluster's. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(name_rules::is_object_name_or_none()).message(Message::Expression(name_rules::object_name_message("persistence.volume.storageClassName", "StorageClass"))))]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the layer is deleted. Default: `Retain`; a layer of the same name adopts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,
}

/// What happens to the volumes when the layer is deleted. Default: `Retain`; a layer of the same name adopts them. With `Delete`
/// a node's volume goes with its StatefulSet: also when the node is scaled away, or its StatefulSet is deleted by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reclaim {
    /// They stay.
    Retain,
    /// They go with the layer, and each with its node.
    Delete,
}

/// When a write counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Durability {
    /// Replicas that must be connected for the primary to take writes; below `replicas`. It bounds what a primary that was
    /// cut off can lose. Default: 1 with two or more replicas, but 0 for rate limits and caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8))]
    pub min_replicas_to_write: Option<i32>,
    /// Seconds after which a silent replica no longer counts, 1 to 60. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub max_replica_lag: Option<i32>,
}

/// How the loss of a primary is found and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.quorum) || (self.quorum <= (has(self.sentinels) ? self.sentinels : 3) && self.quorum * 2 > (has(self.sentinels) ? self.sentinels : 3))")
    .message("failover.quorum must be a majority of the Sentinels, and not more than there are"))]
pub struct Failover {
    /// Silence after which a primary counts as down, 1s to 60s. Only for lost nodes and networks: a crashed server is
    /// replaced at once. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_duration("1s", "60s")).message(Message::Expression(quantity_rules::duration_message("failover.detection", "1s", "60s", "5s"))))]
    pub detection: Option<Duration>,
    /// Sentinels: 3, 5 or 7. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in [3, 5, 7]").message("failover.sentinels must be 3, 5 or 7: an even number tolerates no more losses than the odd one below it"))]
    pub sentinels: Option<i32>,
    /// Sentinels that must agree that the primary is down; a majority. Default: the smallest majority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<i32>,
    /// The volume of each Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_volume: Option<SentinelVolume>,
}

/// The volume of each Sentinel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentinelVolume {
    /// Size, bytes. One small file is kept there, but storage may have a minimum. A change is for Sentinels that are made later.
    /// Default: 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(quantity_rules::is_bytes("1Mi")).message(Message::Expression(quantity_rules::bytes_message("failover.sentinelVolume.size", "1Mi", "1Mi or more"))))]
    pub size: Option<Quantity>,
}

/// Encryption of connections; not implemented in this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Tls {}

/// Data to begin with; not implemented in this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Bootstrap {}
