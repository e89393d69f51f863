//! Why a step is taken, what is waited for, and what is refused.

use crate::model::NodeId;
use crate::model::cluster::{ClusterNodeId, Shard};
use crate::model::slots::SlotSet;
use crate::model::topology::Unsettled;

/// Why a StatefulSet is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApplyReason {
    /// It does not exist.
    Missing,
    /// It was changed by hand, or a part changed that no pod needs to restart for.
    Drift,
    /// It is this node's turn to be rolled.
    Roll,
    /// It is of another revision, and no pod of it is there that could be disturbed.
    NoPod,
}

/// Why a pod is restarted or the primary moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestartReason {
    /// The pod is of another revision than desired.
    Revision,
    /// The pod is of an abandoned revision and never came up.
    BrokenRevision,
    /// The primary has to move so that its node can be changed.
    PrimaryMovesFirst,
    /// The node is to be removed.
    ScaleIn,
    /// A person asked for it.
    Requested,
}

/// What is not done yet, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitReason {
    /// A function library was loaded a moment ago; the next load takes what has come together since.
    Gathering,
    /// The node's Service has no address yet.
    Address {
        /// The node without an address.
        node: NodeId,
    },
    /// The pod does not exist or does not run; with Kubernetes' words.
    Pod {
        /// The node whose pod it is.
        node: NodeId,
        /// Kubernetes' reason, if it gives one.
        trouble: Option<String>,
    },
    /// The server does not answer.
    Server {
        /// A data node or a Sentinel.
        node: NodeId,
    },
    /// The server answers, and the pod is not ready.
    NotReady {
        /// A data node or a Sentinel.
        node: NodeId,
    },
    /// The server is loading its dataset.
    Loading {
        /// A data node.
        node: NodeId,
    },
    /// The replica is not in sync.
    Sync {
        /// A data node other than the primary.
        node: NodeId,
    },
    /// No Sentinel majority agrees on a primary that says it is one.
    Primary,
    /// No node of the shard says that it is primary and owns its slots.
    Owner {
        /// A shard of a Cluster.
        shard: Shard,
    },
    /// The servers of a Cluster do not agree yet.
    Agreement {
        /// The first thing in which they differ.
        what: Unsettled,
    },
    /// The Cluster remembers a server that no node has any more.
    Stranger {
        /// Its name in the Cluster.
        id: ClusterNodeId,
        /// How many slots it owns: one that owns some is not made forgotten.
        slots: u16,
    },
    /// No server owns some slots, and some server did.
    SlotsLost {
        /// Which.
        slots: SlotSet,
    },
    /// Sentinels do not all know each other and every replica yet.
    SentinelView {
        /// The Sentinel that does not know all.
        node: NodeId,
    },
    /// A Sentinel remembers an address that no node has any more; it is reset when all is stable.
    Forgetting {
        /// The Sentinel that remembers it.
        node: NodeId,
    },
    /// The node's pod or StatefulSet is being deleted.
    Termination {
        /// The node that is being deleted.
        node: NodeId,
    },
    /// The node is no longer declared and not gone yet.
    Removal {
        /// The node that is being removed.
        node: NodeId,
        /// What forbids the next part of it; `None`: it is under way.
        because: Option<RefusalReason>,
    },
    /// A failover is under way.
    Failover,
    /// The primary is being moved as planned.
    Handover,
    /// A person has to approve the roll.
    Approval,
    /// `spec.paused` is set.
    Paused,
}

/// What will not be done, and why not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The primary will not be stopped without an in-sync replica that may take over.
    NoInSyncReplica {
        /// The primary that stays.
        node: NodeId,
    },
    /// A replica is not in sync: no other node is disturbed meanwhile.
    NotInSync {
        /// The node that would have been next.
        node: NodeId,
        /// The replica that is behind.
        behind: NodeId,
    },
    /// Too few of the Sentinels that the Sentinels remember would be left to elect a primary.
    NoSentinelMajority {
        /// The node that would have been next.
        node: NodeId,
    },
    /// Another node is already disrupted.
    AnotherNodeIsDown {
        /// The node that would have been next.
        node: NodeId,
        /// The first of those that are not up, or not gone yet.
        down: NodeId,
    },
    /// The Sentinel is in the middle of a failover.
    Electing {
        /// The Sentinel that would have been changed.
        node: NodeId,
    },
    /// The desired engine cannot read the files of the one that runs.
    OlderEngine {
        /// The node that would have been next.
        node: NodeId,
        /// Engine and version that a server reports.
        running: String,
        /// Engine and version that is desired.
        wanted: String,
    },
    /// The servers hold more than the desired `maxmemory`.
    MemoryBelowData {
        /// The node that would have been next.
        node: NodeId,
        /// `used_memory` of the primary, bytes.
        held: u64,
        /// The desired `maxmemory`, bytes.
        maxmemory: u64,
    },
    /// The node's volume claim is being deleted and goes with the pod, and no other node would keep the data.
    VolumeBeingDeleted {
        /// The node that stays.
        node: NodeId,
    },
    /// The servers of the Cluster do not agree: another node is disturbed once they do.
    Unsettled {
        /// The node that would have been next.
        node: NodeId,
        /// The first thing in which they differ.
        what: Unsettled,
    },
    /// A fact that the step needs is unknown.
    Unknown {
        /// The node that would have been changed.
        node: NodeId,
        /// The node of which nothing is known.
        about: NodeId,
    },
}

impl RefusalReason {
    /// The node that is not disturbed.
    pub(crate) const fn node(&self) -> NodeId {
        match self {
            Self::NoInSyncReplica { node }
            | Self::NotInSync { node, .. }
            | Self::NoSentinelMajority { node }
            | Self::AnotherNodeIsDown { node, .. }
            | Self::Electing { node }
            | Self::OlderEngine { node, .. }
            | Self::MemoryBelowData { node, .. }
            | Self::VolumeBeingDeleted { node }
            | Self::Unsettled { node, .. }
            | Self::Unknown { node, .. } => *node,
        }
    }
}
