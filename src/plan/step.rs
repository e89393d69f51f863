//! The vocabulary of a plan: steps with their preconditions, and reasons for waiting and refusing.

use std::collections::BTreeMap;

use crate::model::function_library::is_users_library;
use crate::model::{Address, NodeId};

/// One effect. `act` decides nothing: it checks the precondition, does it or drops it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Apply the node's Service (it gives the address that everything else needs).
    ApplyService {
        /// The node.
        node: NodeId,
    },
    /// Apply the node's StatefulSet as built. Restarts nothing (`OnDelete`).
    ApplyWorkload {
        /// The node.
        node: NodeId,
        /// Digest of what is applied.
        workload_digest: String,
        /// Why.
        reason: ApplyReason,
    },
    /// Delete the node's pod; its StatefulSet makes the new one.
    RestartPod {
        /// The node.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// Precondition: the Sentinels are at this `config-epoch`, so that nobody was promoted meanwhile, this node least of
        /// all. `None`: no Sentinel has a say (Standalone, or a pod that never came up).
        config_epoch: Option<u64>,
        /// Why.
        reason: RestartReason,
    },
    /// Patch the node-config annotation of a running pod.
    PatchConfig {
        /// The node.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// Digest of the document that it gets.
        config_digest: String,
    },
    /// Set the label by which the replicas' Service selects pods.
    LabelReads {
        /// The node.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// The label's new value.
        reads: bool,
    },
    /// Move the primary without loss (DESIGN §2 "Changing things without loss").
    Switchover {
        /// The primary now.
        from: NodeId,
        /// Precondition: this very server process.
        from_run_id: String,
        /// Precondition: the Sentinels are at this `config-epoch`.
        config_epoch: u64,
        /// Replicas that may take over, best first.
        candidates: Vec<NodeId>,
        /// Why.
        reason: RestartReason,
    },
    /// Set directives on a running server and read them back.
    SetSettings {
        /// The data node.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Directive → value.
        changes: BTreeMap<String, String>,
    },
    /// Create or mend a user on a running server (data node or Sentinel).
    SetUser {
        /// The node.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the user; the rules are in `Desired`.
        user: String,
    },
    /// Remove a user that nobody declared, and end its connections.
    DeleteUser {
        /// The node.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the user.
        user: String,
    },
    /// Load a function library on a primary.
    LoadLibrary {
        /// The primary.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the library.
        library: String,
        /// Digest it must answer afterwards.
        digest: String,
    },
    /// Delete a user's function library that is not declared any more from a primary.
    DeleteLibrary {
        /// The primary.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the library.
        library: String,
    },
    /// Tell a Sentinel its quorum and times (`SENTINEL SET`).
    SetSentinel {
        /// The Sentinel.
        node: NodeId,
        /// Precondition: this very process.
        run_id: String,
    },
    /// Make a Sentinel forget what is gone (`SENTINEL RESET`); one Sentinel at a time, never in a failover.
    ResetSentinel {
        /// The Sentinel.
        node: NodeId,
        /// Precondition: this very process.
        run_id: String,
        /// Precondition: the Sentinels are at this `config-epoch`.
        config_epoch: u64,
    },
    /// Mend a replica that follows the wrong node long after the Sentinels had their chance.
    Repoint {
        /// The replica.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// The primary that the Sentinels' majority names.
        primary: Address,
        /// Precondition: the Sentinels are at this `config-epoch`.
        config_epoch: u64,
    },
    /// Remove a node that is no longer declared: StatefulSet, Service (its volume stays unless the spec says otherwise).
    RemoveNode {
        /// The node.
        node: NodeId,
        /// Precondition: this very StatefulSet. `None`: it is gone, the Service goes.
        workload_uid: Option<String>,
        /// Precondition: the Sentinels are at this `config-epoch`; `None` with the Service, which nobody uses any more.
        config_epoch: Option<u64>,
    },
}

impl Step {
    /// The node that the step changes.
    pub const fn node(&self) -> NodeId {
        match self {
            Self::ApplyService { node }
            | Self::ApplyWorkload { node, .. }
            | Self::RestartPod { node, .. }
            | Self::PatchConfig { node, .. }
            | Self::LabelReads { node, .. }
            | Self::SetSettings { node, .. }
            | Self::SetUser { node, .. }
            | Self::DeleteUser { node, .. }
            | Self::LoadLibrary { node, .. }
            | Self::DeleteLibrary { node, .. }
            | Self::SetSentinel { node, .. }
            | Self::ResetSentinel { node, .. }
            | Self::Repoint { node, .. }
            | Self::RemoveNode { node, .. }
            | Self::Switchover { from: node, .. } => *node,
        }
    }

    /// Whether it takes something away for a while: a server, a link, or what a Sentinel knows. A plan has one such step
    /// at most. The Service that a removed node left behind is nobody's any more.
    pub const fn is_disruptive(&self) -> bool {
        match self {
            Self::RestartPod { .. }
            | Self::Switchover { .. }
            | Self::ResetSentinel { .. }
            | Self::Repoint { .. }
            | Self::RemoveNode { workload_uid: Some(_), .. } => true,
            Self::RemoveNode { workload_uid: None, .. }
            | Self::ApplyService { .. }
            | Self::ApplyWorkload { .. }
            | Self::PatchConfig { .. }
            | Self::LabelReads { .. }
            | Self::SetSettings { .. }
            | Self::SetUser { .. }
            | Self::DeleteUser { .. }
            | Self::LoadLibrary { .. }
            | Self::DeleteLibrary { .. }
            | Self::SetSentinel { .. } => false,
        }
    }

    /// The `config-epoch` that the Sentinels must still be at; `None`: the step does not depend on it.
    pub const fn expected_epoch(&self) -> Option<u64> {
        match self {
            Self::RestartPod { config_epoch, .. } | Self::RemoveNode { config_epoch, .. } => *config_epoch,
            Self::Switchover { config_epoch, .. }
            | Self::ResetSentinel { config_epoch, .. }
            | Self::Repoint { config_epoch, .. } => Some(*config_epoch),
            Self::ApplyService { .. }
            | Self::ApplyWorkload { .. }
            | Self::PatchConfig { .. }
            | Self::LabelReads { .. }
            | Self::SetSettings { .. }
            | Self::SetUser { .. }
            | Self::DeleteUser { .. }
            | Self::LoadLibrary { .. }
            | Self::DeleteLibrary { .. }
            | Self::SetSentinel { .. } => None,
        }
    }

    /// Whether it is about a user's function library. The layer is whole without one, and what becomes of the step is told of its use.
    pub fn is_of_users_library(&self) -> bool {
        match self {
            Self::LoadLibrary { library, .. } | Self::DeleteLibrary { library, .. } => is_users_library(library),
            Self::ApplyService { .. }
            | Self::ApplyWorkload { .. }
            | Self::RestartPod { .. }
            | Self::PatchConfig { .. }
            | Self::LabelReads { .. }
            | Self::Switchover { .. }
            | Self::SetSettings { .. }
            | Self::SetUser { .. }
            | Self::DeleteUser { .. }
            | Self::SetSentinel { .. }
            | Self::ResetSentinel { .. }
            | Self::Repoint { .. }
            | Self::RemoveNode { .. } => false,
        }
    }
}

impl Refused {
    /// The node that is not disturbed.
    pub const fn node(&self) -> NodeId {
        match self {
            Self::NoInSyncReplica { node }
            | Self::NotInSync { node, .. }
            | Self::NoSentinelMajority { node }
            | Self::AnotherNodeIsDown { node, .. }
            | Self::Electing { node }
            | Self::OlderEngine { node, .. }
            | Self::MemoryBelowData { node, .. }
            | Self::Unknown { node, .. } => *node,
        }
    }
}

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
}

/// What is not done yet, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// A function library was loaded a moment ago; the next load takes what has come together since.
    Gathering,
    /// The node's Service has no address yet.
    Address {
        /// The node.
        node: NodeId,
    },
    /// The pod does not exist or does not run; with Kubernetes' words.
    Pod {
        /// The node.
        node: NodeId,
        /// Kubernetes' reason, if it gives one.
        trouble: Option<String>,
    },
    /// The server does not answer.
    Server {
        /// The node.
        node: NodeId,
    },
    /// The server answers, and the pod is not ready.
    NotReady {
        /// The node.
        node: NodeId,
    },
    /// The server is loading its dataset.
    Loading {
        /// The node.
        node: NodeId,
    },
    /// The replica is not in sync.
    Sync {
        /// The node.
        node: NodeId,
    },
    /// No Sentinel majority agrees on a primary that says it is one.
    Primary,
    /// Sentinels do not all know each other and every replica yet.
    SentinelView {
        /// The Sentinel.
        node: NodeId,
    },
    /// A Sentinel remembers an address that no node has any more; it is reset when all is calm.
    Forgetting {
        /// The Sentinel.
        node: NodeId,
    },
    /// The node's pod or StatefulSet is being deleted.
    Termination {
        /// The node.
        node: NodeId,
    },
    /// The node is no longer declared and not gone yet.
    Removal {
        /// The node.
        node: NodeId,
        /// What forbids the next part of it; `None`: it is under way.
        because: Option<Refused>,
    },
    /// A failover is under way.
    Failover,
    /// A person has to approve the roll.
    Approval,
    /// `spec.paused` is set.
    Paused,
}

/// What will not be done, and why not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The primary will not be stopped without an in-sync replica that may take over.
    NoInSyncReplica {
        /// The primary.
        node: NodeId,
    },
    /// A replica is not in sync: nobody else is disturbed meanwhile.
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
        /// The one that is down.
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
    /// A fact that the step needs is unknown.
    Unknown {
        /// The node that would have been changed.
        node: NodeId,
        /// The node of which nothing is known.
        about: NodeId,
    },
}
