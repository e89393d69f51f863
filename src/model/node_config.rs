//! What the operator tells an agent: the one document between the two.
//!
//! It travels as the annotation `redoubt.dev/node-config` of the pod, which the pod sees as a file; it holds no secret.
//! The agent reads it again at each start of its engine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Address, LayerIdentity, Mode, NodeId};

/// Version of the document. An agent refuses a newer one.
pub const NODE_CONFIG_FORMAT: u32 = 1;

/// The file among a node's secrets with the sources of the layer's function libraries, as a list in JSON or the same compressed. Only
/// a layer that keeps nothing has it.
pub const FUNCTIONS_FILE: &str = "functions.json";

/// The file among a data node's secrets with the prefixes of the layer's uses ([`super::audit::DeclaredPrefixes`]).
pub const PREFIXES_FILE: &str = "prefixes.json";

/// Port of Redis on every data node.
pub const REDIS_PORT: u16 = 6379;
/// Port of the bus of a Cluster on every data node: Redis' own choice, 10,000 above the port of clients.
pub const BUS_PORT: u16 = REDIS_PORT + 10_000;
/// Port of every Sentinel.
pub const SENTINEL_PORT: u16 = 26379;
/// Port of the agent: `/health/{started,ready,live}`, `/lineage`, `/metrics` (redis_exporter's port).
pub const AGENT_PORT: u16 = 9121;

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// [`NODE_CONFIG_FORMAT`] of the writer.
    pub format: u32,
    /// Namespace, name and UID of the layer.
    pub layer: LayerIdentity,
    /// The node whose pod has this document.
    pub node: NodeId,
    /// Mode of the layer.
    pub mode: Mode,
    /// Whether the layer was Ready once: from then on an empty node is never primary by itself.
    pub initialised: bool,
    /// Whether the layer's data is meant to survive a restart (any persistence).
    pub keeps_data: bool,
    /// Value of `redoubt.dev/accept-loss` on the `DataLayer`: the ordinal of the data node whose data a person chose.
    pub accept_loss: Option<u16>,
    /// Folders of `redoubt.dev/drop-aside` on the `DataLayer`: data that was kept aside and that a person does not need.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drop_aside: BTreeSet<String>,
    /// The caches of the layer (empty for a Sentinel): what their keys begin with, and the channel of each. The agent of the primary
    /// removes what they ask for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, String>,
    /// The function libraries that applications of the layer call (empty for a Sentinel), users' own left out: a primary that keeps
    /// nothing is not ready without them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub functions: BTreeSet<String>,
    /// The data nodes that have the same data, with their announced addresses, this one included: all of the layer, or those of its shard.
    pub data_nodes: BTreeMap<u16, Address>,
    /// All Sentinels with their announced addresses, this one included.
    pub sentinels: BTreeMap<u16, Address>,
    /// Name of the primary in the Sentinels.
    pub master_name: String,
    /// Sentinels that must agree that the primary is down.
    pub quorum: u16,
    /// Silence after which a primary counts as down (`down-after-milliseconds`).
    pub detection_milliseconds: u64,
    /// `failover-timeout` of the Sentinels.
    pub failover_timeout_milliseconds: u64,
    /// Seconds that the pod has between SIGTERM and SIGKILL.
    pub grace_period_seconds: u64,
    /// What mode `Cluster` needs besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterConfig>,
    /// Directives of `redis.conf` that come from the specification (empty for a Sentinel). The agent adds what is its own:
    /// port, dir, announced address, credentials, `replicaof`.
    pub settings: BTreeMap<String, String>,
}

/// What a node of a Cluster is told besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfig {
    /// All data nodes of the layer, of every shard, with their announced addresses.
    pub nodes: BTreeMap<u16, Address>,
}

impl ClusterConfig {
    /// The nodes by their identity.
    pub fn declared(&self) -> BTreeMap<NodeId, Address> {
        self.nodes.iter().map(|(ordinal, address)| (NodeId::data(*ordinal), address.clone())).collect()
    }
}

impl NodeConfig {
    /// Whether another node may take over.
    pub(crate) fn fails_over(&self) -> bool {
        self.has_sentinels() || self.cluster.is_some()
    }

    /// Whether Sentinels look after the primary.
    pub(crate) fn has_sentinels(&self) -> bool {
        !self.sentinels.is_empty()
    }

    /// Whether its server is to have an append-only file.
    pub(crate) fn wants_append_only(&self) -> bool {
        self.settings.get("appendonly").is_some_and(|value| value == "yes")
    }

    /// The address that this node announces; `None` if the document does not list the node.
    pub fn own_address(&self) -> Option<&Address> {
        match self.node.kind {
            super::NodeKind::Data => self.data_nodes.get(&self.node.ordinal),
            super::NodeKind::Sentinel => self.sentinels.get(&self.node.ordinal),
        }
    }
}
