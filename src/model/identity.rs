//! Who is who: the layer, its nodes, and the words of Redis replication.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a layer is deployed. `Standalone` is one node without a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// One node, no Sentinels: development and disposable caches.
    Standalone,
    /// One primary, replicas, and Sentinels that elect.
    Sentinel,
    /// Several primaries that share the slots, each with replicas; the primaries elect.
    Cluster,
}

/// What the data of a layer is for; it picks the defaults (DESIGN §1, `dataplane.md` §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// Login sessions: nothing may be evicted, everything survives a restart.
    Sessions,
    /// Rate limit counters: small, fast, may be lost with the layer.
    RateLimits,
    /// Cached copies of data that has its home elsewhere.
    Cache,
    /// Conversation turns, features and vectors of agents.
    AgentContext,
    /// Several of these; the safest default of each.
    Mixed,
}

/// The layer that a fact belongs to. The UID decides; the names are for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerIdentity {
    /// `metadata.uid` of the `DataLayer`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl LayerIdentity {
    /// The name under which the Sentinels know the primary: the layer's name and the first eight characters of its UID,
    /// so that two layers which ever meet at one address never merge (spotahome/redis-operator#550).
    pub fn master_name(&self) -> String {
        let short: String = self.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("{}-{short}", self.name)
    }
}

/// Which of the two processes a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    /// A Redis or Valkey server that holds data.
    Data,
    /// A Sentinel.
    Sentinel,
}

/// One node of a layer: its kind and ordinal. Ordered by kind, then ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// Data node or Sentinel.
    pub kind: NodeKind,
    /// 0 and up; never reused for another node while the layer lives.
    pub ordinal: u16,
}

impl NodeId {
    /// Data node `ordinal`.
    pub const fn data(ordinal: u16) -> Self {
        Self { kind: NodeKind::Data, ordinal }
    }

    /// Sentinel `ordinal`.
    pub const fn sentinel(ordinal: u16) -> Self {
        Self { kind: NodeKind::Sentinel, ordinal }
    }
}

impl fmt::Display for NodeId {
    /// `redis-0` or `sentinel-2`: the node's name without the layer's.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            NodeKind::Data => write!(formatter, "redis-{}", self.ordinal),
            NodeKind::Sentinel => write!(formatter, "sentinel-{}", self.ordinal),
        }
    }
}

/// The address that a node announces: the fixed IP of its Service, without the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Bytes of the replication stream (`master_repl_offset`, `slave_repl_offset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// A replication history (`master_replid`): 40 hexadecimal characters. Offsets compare only within one history.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicationId(pub String);

/// What a server says it is (`ROLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows a primary.
    Replica,
}

/// What the label `redoubt.dev/role` says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodRole {
    /// The primary, by its own word and that of most Sentinels.
    Primary,
    /// A data node that follows another.
    Replica,
    /// A Sentinel.
    Sentinel,
}

impl PodRole {
    /// Every role.
    const ALL: [Self; 3] = [Self::Primary, Self::Replica, Self::Sentinel];

    /// The label's value.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Sentinel => "sentinel",
        }
    }

    /// The role that a label's value says; `None`: it is none of ours.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// What the administrator of a layer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdministratorAccess {
    /// Look at servers and at names, types and sizes of keys. No value.
    Diagnostics,
    /// That, and every command on keys.
    Full,
}
