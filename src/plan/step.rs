//! The steps of a plan, each with its precondition.

use std::collections::BTreeMap;

use super::reason::{ApplyReason, RestartReason};
use crate::model::cluster::ClusterNodeId;
use crate::model::function_library::is_users_library;
use crate::model::slots::SlotSet;
use crate::model::{Address, NodeId, PodRole};

/// One effect. `act` decides nothing: it checks the precondition, does it or drops it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Apply the node's Service (it gives the address that everything else needs).
    ApplyService {
        /// The node that the Service selects.
        node: NodeId,
    },
    /// Apply the node's StatefulSet as built. Restarts nothing (`OnDelete`).
    ApplyWorkload {
        /// The node that the StatefulSet runs.
        node: NodeId,
        /// Digest of what is applied.
        workload_digest: String,
        /// What made the step due.
        reason: ApplyReason,
    },
    /// Delete the node's pod; its StatefulSet makes the new one.
    RestartPod {
        /// The node whose pod restarts.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// Precondition: the Sentinels are at this `config-epoch`, so that no replica was promoted meanwhile, this node least of
        /// all. `None`: no Sentinel has a say (Standalone, or a pod that never came up).
        config_epoch: Option<u64>,
        /// Precondition: unless this is set, no volume claim of the pod is being deleted. It would go with the pod.
        ends_claim: bool,
        /// What made the step due.
        reason: RestartReason,
    },
    /// Patch the node-config annotation of a running pod.
    PatchConfig {
        /// The node whose pod gets it.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// Digest of the document that it gets.
        config_digest: String,
    },
    /// Point the primary's Service at the node's pod.
    PointService {
        /// The primary that the Service selects then.
        node: NodeId,
        /// Precondition: this very `resourceVersion` of the Service; `None`: there is none, and it is made.
        version: Option<String>,
    },
    /// Set the labels of a pod that follow live roles.
    LabelPod {
        /// A data node or a Sentinel.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
        /// Whether the replicas' Service selects the pod; `None`: it selects no pod of that kind.
        reads: Option<bool>,
        /// What the label of the role says; `None`: nothing, because the role is not known.
        role: Option<PodRole>,
    },
    /// Put back the labels of a pod by which it is found.
    RelabelPod {
        /// A data node or a Sentinel.
        node: NodeId,
        /// Precondition: this very pod.
        pod_uid: String,
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
        /// The one of them that is to take over; `None`: the one that the Sentinels elect.
        to: Option<NodeId>,
        /// What made the step due.
        reason: RestartReason,
    },
    /// Set directives on a running server and read them back.
    SetSettings {
        /// The data node of the server.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Directive → value.
        changes: BTreeMap<String, String>,
    },
    /// Create or mend a user on a running server (data node or Sentinel).
    SetUser {
        /// A data node or a Sentinel.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the user; the rules are in `Desired`.
        user: String,
    },
    /// Remove a user that is not declared, and end its connections.
    DeleteUser {
        /// A data node or a Sentinel.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// ACL name of the user.
        user: String,
    },
    /// Load a function library on a primary.
    LoadLibrary {
        /// The primary that loads it.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the library on the server.
        library: String,
        /// Digest it must answer afterwards.
        digest: String,
    },
    /// Delete a user's function library that is not declared any more from a primary.
    DeleteLibrary {
        /// The primary that deletes it.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the library on the server.
        library: String,
    },
    /// Tell a Sentinel its quorum and times (`SENTINEL SET`).
    SetSentinel {
        /// The Sentinel that gets them.
        node: NodeId,
        /// Precondition: this very process.
        run_id: String,
    },
    /// Make a Sentinel forget what is gone (`SENTINEL RESET`); one Sentinel at a time, never in a failover.
    ResetSentinel {
        /// The Sentinel that is reset.
        node: NodeId,
        /// Precondition: this very process.
        run_id: String,
        /// Precondition: the Sentinels are at this `config-epoch`.
        config_epoch: u64,
    },
    /// Mend a replica that follows the wrong node long after the Sentinels had their chance.
    Repoint {
        /// The replica that is repointed.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// The primary that the Sentinels' majority names.
        primary: Address,
        /// Precondition: the Sentinels are at this `config-epoch`.
        config_epoch: u64,
    },
    /// Give slots that no server owns to a primary of a Cluster that was never whole (`CLUSTER ADDSLOTSRANGE`).
    AddSlots {
        /// The primary that owns them then.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Which slots. The server refuses them all where it knows an owner of one.
        slots: SlotSet,
    },
    /// Make a server of a Cluster forget one that no node has any more (`CLUSTER FORGET`). All that remember it are told in one plan: who
    /// still knows it would tell the others again.
    ForgetMember {
        /// The node that remembers it.
        node: NodeId,
        /// Precondition: this very server process.
        run_id: String,
        /// Name of the server that is gone.
        gone: ClusterNodeId,
    },
    /// Remove a node that is no longer declared: StatefulSet, Service (its volume stays unless the spec says otherwise).
    RemoveNode {
        /// The node that is removed.
        node: NodeId,
        /// Precondition: this very StatefulSet. `None`: it is gone, the Service goes.
        workload_uid: Option<String>,
        /// Precondition: the Sentinels are at this `config-epoch`; `None` with the Service, which is not used any more.
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
            | Self::PointService { node, .. }
            | Self::LabelPod { node, .. }
            | Self::RelabelPod { node, .. }
            | Self::SetSettings { node, .. }
            | Self::SetUser { node, .. }
            | Self::DeleteUser { node, .. }
            | Self::LoadLibrary { node, .. }
            | Self::DeleteLibrary { node, .. }
            | Self::SetSentinel { node, .. }
            | Self::ResetSentinel { node, .. }
            | Self::Repoint { node, .. }
            | Self::AddSlots { node, .. }
            | Self::ForgetMember { node, .. }
            | Self::RemoveNode { node, .. }
            | Self::Switchover { from: node, .. } => *node,
        }
    }

    /// Whether it takes something away for a while: a server, a link, or what a Sentinel knows. A plan has one such step
    /// at most. The Service that a removed node left behind has no owner any more.
    pub const fn is_disruptive(&self) -> bool {
        match self {
            Self::RestartPod { .. }
            | Self::Switchover { .. }
            | Self::ResetSentinel { .. }
            | Self::Repoint { .. }
            | Self::RemoveNode { workload_uid: Some(_), .. } => true,
            Self::RemoveNode { workload_uid: None, .. }
            | Self::AddSlots { .. }
            | Self::ForgetMember { .. }
            | Self::ApplyService { .. }
            | Self::ApplyWorkload { .. }
            | Self::PatchConfig { .. }
            | Self::PointService { .. }
            | Self::LabelPod { .. }
            | Self::RelabelPod { .. }
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
            | Self::PointService { .. }
            | Self::LabelPod { .. }
            | Self::RelabelPod { .. }
            | Self::SetSettings { .. }
            | Self::SetUser { .. }
            | Self::DeleteUser { .. }
            | Self::LoadLibrary { .. }
            | Self::DeleteLibrary { .. }
            | Self::AddSlots { .. }
            | Self::ForgetMember { .. }
            | Self::SetSentinel { .. } => None,
        }
    }

    /// Whether it is about a user's function library. The layer is whole without one, and what becomes of the step is told of its use.
    pub(crate) fn is_of_users_library(&self) -> bool {
        match self {
            Self::LoadLibrary { library, .. } | Self::DeleteLibrary { library, .. } => is_users_library(library),
            Self::ApplyService { .. }
            | Self::ApplyWorkload { .. }
            | Self::RestartPod { .. }
            | Self::PatchConfig { .. }
            | Self::PointService { .. }
            | Self::LabelPod { .. }
            | Self::RelabelPod { .. }
            | Self::Switchover { .. }
            | Self::SetSettings { .. }
            | Self::SetUser { .. }
            | Self::DeleteUser { .. }
            | Self::SetSentinel { .. }
            | Self::ResetSentinel { .. }
            | Self::Repoint { .. }
            | Self::AddSlots { .. }
            | Self::ForgetMember { .. }
            | Self::RemoveNode { .. } => false,
        }
    }
}
