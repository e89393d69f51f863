//! What a layer should be, in the planner's words. The controller fills it from the validated specification and from what
//! `build` rendered; nothing in it needs Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::NODES_OF_A_SHARD;
use super::engine::EngineVersion;
use super::{LayerIdentity, NodeId, NodeKind};

/// The desired state of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub struct Desired {
    /// Namespace, name and UID of the layer.
    pub layer: LayerIdentity,
    /// `metadata.generation` that this was made from.
    pub generation: i64,
    /// Whether the mode is `Cluster`.
    pub in_cluster: bool,
    /// `spec.paused`: observe and report, change nothing.
    pub paused: bool,
    /// The engine that the pods should run, as far as its image says which.
    pub engine: Option<EngineVersion>,
    /// Whether a server meets files of another: when it starts, or as a replica that syncs.
    pub reads_files: bool,
    /// Whether disruptive steps wait for a person (`update.approval: Manual` and this revision not yet approved).
    pub disruption_needs_approval: bool,
    /// Data nodes (1 + replicas) and Sentinels that should exist, each with its wanted revisions.
    pub nodes: BTreeMap<NodeId, DesiredNode>,
    /// Live-checked directives of every data node: name → canonical value (see [`super::settings`]). Those that Redis
    /// only takes at start are included: they are compared, and differ only until the node is rolled.
    pub settings: BTreeMap<String, String>,
    /// Names among them that Redis takes only at start: part of the restart revision, never told to a running server.
    pub start_only: BTreeSet<String>,
    /// Users of every data node: name → digest of the rules as `ACL LIST` reports them (see `redis::users`).
    pub users: BTreeMap<String, DesiredUser>,
    /// Users of every Sentinel.
    pub sentinel_users: BTreeMap<String, DesiredUser>,
    /// Function libraries of every primary: name → library.
    pub libraries: BTreeMap<String, DesiredLibrary>,
    /// Users' libraries that stay on the primary as they are, if they are there.
    pub kept_libraries: BTreeSet<String>,
    /// Whether a library was loaded a moment ago: changes are gathered, and loads are a second apart at least.
    pub gathering: bool,
    /// What every Sentinel should be set to.
    pub sentinel_settings: SentinelSettings,
    /// Name of the primary in the Sentinels.
    pub master_name: String,
    /// The move of the primary that a person asks for and that has not been answered.
    pub promotion: Option<PromotionRequest>,
}

/// A move of the primary that a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// The node that is to be primary; `None`: the name is no declared node's.
    pub node: Option<NodeId>,
    /// Why the move failed, if it was tried.
    pub failed: Option<String>,
}

/// The wanted revisions of one node. All three are opaque digests made by `build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredNode {
    /// Digest of the whole StatefulSet as built: differs → it is applied (this alone restarts nothing: `OnDelete`).
    pub workload_digest: String,
    /// Digest of what only a new pod can take (image, resources, start-only settings…): differs → the pod is rolled.
    pub restart_revision: String,
    /// Digest of the node-config document: differs on a pod of the right restart revision → the annotation is patched.
    pub config_digest: String,
}

impl Desired {
    /// Whether Sentinels look after the primary.
    pub(crate) fn has_sentinels(&self) -> bool {
        self.nodes.keys().any(|node| node.kind == NodeKind::Sentinel)
    }

    /// Whether another node may take over.
    pub(crate) fn fails_over(&self) -> bool {
        self.has_sentinels() || (self.in_cluster && self.nodes.keys().any(|node| node.ordinal % NODES_OF_A_SHARD > 0))
    }

    /// Whether the layer is one server: no other node has to be up, or can take over.
    pub(crate) fn is_single_node(&self) -> bool {
        self.nodes.keys().eq([&NodeId::data(0)])
    }
}

/// A user as it should be on each server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredUser {
    /// `ACL SETUSER` rules in order, beginning with `reset`; passwords only as `#` SHA-256 digests.
    pub rules: Vec<String>,
}

impl DesiredUser {
    /// Whether the rules leave the user switched on.
    pub(crate) fn is_on(&self) -> bool {
        let last = self.rules.iter().rev().find(|rule| matches!(rule.as_str(), "on" | "off" | "reset"));
        last.is_some_and(|rule| rule == "on")
    }
}

/// A function library as it should be on each primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredLibrary {
    /// Digest that the library's own no-key function answers (`<library>_digest`).
    pub digest: String,
}

/// What a Sentinel is told about its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentinelSettings {
    /// `quorum`: Sentinels that must agree that the primary is down.
    pub quorum: u16,
    /// `down-after-milliseconds`.
    pub detection: Duration,
    /// `failover-timeout`: three detections, 10 s at least.
    pub failover_timeout: Duration,
    /// `parallel-syncs`: all data nodes at once. Replicas resume their sync from the backlog, so none is away for long, and writers
    /// wait for the first that is back.
    pub parallel_syncs: u16,
}
