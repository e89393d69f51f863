//! The vocabulary of a plan: steps with their preconditions, and reasons for waiting and refusing.

use std::collections::BTreeMap;

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
    },
    /// Mend a replica that follows the wrong node long after the Sentinels had their chance.
    Repoint {
        /// The replica.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// The primary that the Sentinels' majority names.
        primary: Address,
    },
    /// Remove a node that is no longer declared: StatefulSet, Service (its volume stays unless the spec says otherwise).
    RemoveNode {
        /// The node.
        node: NodeId,
        /// Precondition: this very StatefulSet.
        workload_uid: Option<String>,
    },
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
    /// Another node is already disrupted.
    AnotherNodeIsDown {
        /// The node that would have been next.
        node: NodeId,
        /// The one that is down.
        down: NodeId,
    },
    /// A fact that the step needs is unknown.
    Unknown {
        /// The node that would have been changed.
        node: NodeId,
        /// The node of which nothing is known.
        about: NodeId,
    },
}
