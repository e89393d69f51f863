//! What one server of a Cluster believes of all: its view, as `CLUSTER NODES` and `CLUSTER INFO` tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::slots::{Slot, SlotSet};
use super::{Address, NodeId, NodeKind};

/// How many nodes a shard has room for: the last digit of a node's ordinal counts them.
pub const NODES_OF_A_SHARD: u16 = 10;

/// A primary's part of the slots with the nodes that hold it, 0 to 499. Redis gives it no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard that a data node belongs to: `redis-31` is a node of shard 3.
    pub fn of(node: NodeId) -> Option<Self> {
        (node.kind == NodeKind::Data).then_some(Self(node.ordinal / NODES_OF_A_SHARD))
    }

    /// A node of the shard by its index, 0 to 9.
    pub const fn node(self, index: u16) -> NodeId {
        NodeId::data(NODES_OF_A_SHARD * self.0 + index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {}", self.0)
    }
}

/// The name that a server gave itself at its first start, and that its `nodes.conf` keeps: 40 hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterNodeId(String);

/// The text is no name of a server in a Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server's name in its Cluster is 40 hexadecimal characters")]
pub struct NoClusterNodeId;

impl TryFrom<String> for ClusterNodeId {
    type Error = NoClusterNodeId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or(NoClusterNodeId)
    }
}

impl From<ClusterNodeId> for String {
    fn from(id: ClusterNodeId) -> Self {
        id.0
    }
}

impl ClusterNodeId {
    /// `None`: the text is no such name.
    pub fn parse(text: &str) -> Option<Self> {
        const LENGTH: usize = 40;
        let is_one =
            text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_one.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterNodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The number of a decision who owns slots (`config-epoch`): the claim with the higher one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigEpoch(pub u64);

/// What the servers of a Cluster say of one of them (`flags`), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberFlag {
    /// It does not answer this server (`fail?`).
    Suspected,
    /// Most owners of slots agree that it does not answer (`fail`).
    Failed,
    /// It was met and has not answered yet (`handshake`).
    Handshake,
    /// Its address is not known (`noaddr`).
    NoAddress,
    /// It is no candidate in an election (`nofailover`).
    NoFailover,
}

/// One server in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The address that it announces; `None`: the viewer does not know it.
    pub address: Option<Address>,
    /// Whom it copies; `None`: it is a primary.
    pub primary: Option<ClusterNodeId>,
    /// What is said of it.
    pub flags: BTreeSet<MemberFlag>,
    /// The epoch of its claim on its slots; a replica has its primary's.
    pub epoch: ConfigEpoch,
    /// The slots that it owns.
    pub slots: SlotSet,
}

/// What one server believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The server itself. It is among the members.
    pub own: ClusterNodeId,
    /// All that it knows, itself included.
    pub members: BTreeMap<ClusterNodeId, Member>,
    /// Slots that leave it key by key: slot → to whom. It says so of itself only.
    pub migrating: BTreeMap<Slot, ClusterNodeId>,
    /// Slots that come to it key by key: slot → from whom.
    pub importing: BTreeMap<Slot, ClusterNodeId>,
    /// Whether it serves (`cluster_state:ok`).
    pub serves: bool,
    /// The highest epoch that it has heard of (`cluster_current_epoch`).
    pub current_epoch: ConfigEpoch,
}

/// A view as an agent tells it: nodes by their ordinals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewAnswer {
    /// The server itself.
    pub id: ClusterNodeId,
    /// Ordinal of a data node → the server that the view has at its address.
    pub members: BTreeMap<u16, ClusterNodeId>,
    /// Number of a shard → the declared node that owns slots for it.
    pub owners: BTreeMap<u16, ShardOwner>,
}

/// Which node owns the slots of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardOwner {
    /// Ordinal of the data node.
    pub ordinal: u16,
    /// The epoch of its claim.
    pub epoch: ConfigEpoch,
}

impl ClusterView {
    /// What an agent tells of it. `declared`: every data node of the layer with its announced address. An address at which the view has two
    /// servers, as after a node lost its files, is left out. Of two owners of a shard the one with the higher epoch is told.
    pub fn answer(&self, declared: &BTreeMap<NodeId, Address>) -> ViewAnswer {
        let mut at: BTreeMap<&Address, Vec<(&ClusterNodeId, &Member)>> = BTreeMap::new();
        for (id, member) in &self.members {
            if let Some(address) = &member.address {
                at.entry(address).or_default().push((id, member));
            }
        }
        let known = declared.iter().filter_map(|(node, address)| match at.get(address)?.as_slice() {
            [one] => Some((*node, *one)),
            _ => None,
        });
        let mut answer = ViewAnswer { id: self.own.clone(), members: BTreeMap::new(), owners: BTreeMap::new() };
        for (node, (id, member)) in known {
            answer.members.insert(node.ordinal, id.clone());
            let Some(shard) = Shard::of(node).filter(|_| !member.slots.is_empty()) else { continue };
            let owner = ShardOwner { ordinal: node.ordinal, epoch: member.epoch };
            let known = answer.owners.entry(shard.0).or_insert(owner);
            if owner.epoch > known.epoch {
                *known = owner;
            }
        }
        answer
    }
}
