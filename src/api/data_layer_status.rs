//! What is reported of a `DataLayer`. Nothing in it moves while nothing changes: offsets and counters are metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was proven on the live servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataLayerStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word: `Ready`, or the most important reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The sentence that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Ready`, `Progressing`, `Degraded`, one for each promise, and `Reconciling` or `Stalled` while one of them is true, for
    /// tools that wait by `kstatus`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// True once the layer was found as declared: from then on a node that finds no data does not take the layer for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialised: Option<bool>,
    /// Replicas that are connected to the primary and have what it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Replicas in sync, and how many are declared: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_in_sync: Option<String>,
    /// Label selector of the data pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Shards of mode `Cluster` whose slots a primary owns, and how many are declared: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<String>,
    /// Node that is primary. Absent in mode `Cluster`, which has one for each shard: `nodes` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Engine and version that the servers report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Image of the engine, as it was accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Data nodes and Sentinels, as the operator saw them last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub nodes: Vec<NodeStatus>,
    /// The memory budget, term by term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// What a layer for production needs, and whether this one has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["item".to_owned()]))]
    pub checklist: Vec<ChecklistItem>,
    /// What the audit of the keys found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditStatus>,
    /// The binding Secret of the application user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingReference>,
    /// The binding Secret of the administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<BindingReference>,
    /// What became of the annotation `redoubt.dev/promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<PromotionStatus>,
    /// The uses that have a place in the layer, and those that left while keys may still be under their prefixes. Absent: no list was
    /// made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<Tenant>>,
}

/// A key prefix of the layer, and the use that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// What each key of the use begins with.
    pub prefix: String,
    /// `metadata.namespace` of the use.
    pub namespace: String,
    /// `kind` of the use. Absent: an older version made the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `metadata.name` of the use.
    pub store: String,
    /// `metadata.uid` of the use: one that is made again under the same name is another tenant.
    pub uid: String,
    /// When the use got its place.
    pub since: Time,
    /// When it left. The prefix is kept for a use of the same kind, namespace and name until the audit finds no key under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Time>,
}

/// A request to move the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromotionStatus {
    /// The value of the annotation: the node that is to be primary.
    pub request: String,
    /// `Waiting`, `Moving`, `Refused`, `Failed` (not tried again), or for good `Done`.
    pub state: String,
    /// The sentence that goes with it.
    pub message: String,
}

/// A data node or a Sentinel, as the operator saw it last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// `redis-N` or `sentinel-N`: its pod is `LAYER-redis-N-0` or `LAYER-sentinel-N-0`.
    pub name: String,
    /// `Primary`, `Replica` or `Sentinel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Address that it announces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Label `topology.kubernetes.io/zone` of its Kubernetes node; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `InSync`, `Syncing`, `Lagging`, `Loading` or `Unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Data that it keeps aside on its volume, as its agent reported last.
    #[serde(default, rename = "keptAside", skip_serializing_if = "Vec::is_empty")]
    pub kept_aside: Vec<KeptFolder>,
}

/// Data files that are no longer the dataset of a node and that are not thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptFolder {
    /// Name of the folder below `/data/aside`.
    pub folder: String,
    /// Bytes of the files on the volume.
    pub bytes: i64,
    /// What happened to the data of the node: it was replaced, given up by a person, or damaged.
    pub why: String,
}

/// The memory budget of each data pod: limit = maxmemory + connections + client buffers + largest command + replica buffers + room for
/// copies while saving + fragmentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// Memory limit of the pod, bytes: `spec.memory.limit`.
    pub limit: i64,
    /// Bytes for data: the directive `maxmemory` of each server.
    pub maxmemory: i64,
    /// Bytes for pages that are written to while a child saves.
    pub copy_on_write: i64,
    /// Bytes for connections, ours included, before they ask for anything large.
    #[serde(default)]
    pub connections: i64,
    /// Bytes for large requests and replies.
    pub client_buffers: i64,
    /// Bytes by which one command may pass `maxmemory`: a value of the largest size, `proto-max-bulk-len`, and some.
    #[serde(default)]
    pub largest_command: i64,
    /// Bytes for what replicas have not taken yet, the backlog included.
    #[serde(default)]
    pub replica_buffers: i64,
    /// Bytes for fragmentation and the program itself.
    pub fragmentation: i64,
    /// Share of `maxmemory` in use on the primary, in steps of 10 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
}

/// What the last whole pass over all keys found. Numbers move in steps: they stay as long as they are about right, and 0 is exact. The
/// agent's metrics (`redoubt_audit_…`) have them as they were counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// When a pass was over. At most a day behind the last one, while nothing changes.
    pub finished: Time,
    /// Keys of the whole layer, those of no use included.
    pub keys: i64,
    /// Keys without an expiry, wherever they are.
    pub without_expiry: i64,
    /// Keys under the prefix of no use.
    pub outside: i64,
    /// Bytes of all keys, estimated from a sample.
    pub bytes: i64,
    /// With a probability of 95 % the true sum is at most this far from what was estimated.
    pub bytes_error: i64,
    /// Some keys without an expiry, at most 5: of each the first 16 hexadecimal characters of its SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// Some keys under the prefix of no use, in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside_examples: Vec<String>,
    /// The largest of the keys that were measured, at most 5, the largest first. They stay as long as the first is about as large, for a
    /// day at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<LargestKey>,
}

/// One of the largest keys that the audit measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LargestKey {
    /// The first 16 hexadecimal characters of its SHA-256: its name may be a secret.
    pub key: String,
    /// The use's prefix that it begins with; absent: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Bytes that it takes, two significant digits.
    pub bytes: i64,
}

/// One item of the production checklist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChecklistItem {
    /// The property that is checked, a few words.
    pub item: String,
    /// Whether the layer has this property.
    pub ok: bool,
    /// The setting or fact that the answer was read from.
    pub evidence: String,
}

/// A Secret in Service Binding form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindingReference {
    /// Name of the Secret, in the namespace of the object.
    pub name: String,
}
