//! What of a node several rules ask: whether it is declared, on its way out, or of another revision than desired.

use crate::model::NodeId;
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedNode};

/// Nodes of which something is left and which are no longer declared, in order.
pub(super) fn undeclared<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = NodeId> + 'a {
    observed.nodes.keys().copied().filter(|node| !desired.nodes.contains_key(node))
}

/// Whether the node is on its way out.
pub(super) fn is_leaving(observed: &Observed, node: NodeId) -> bool {
    observed.nodes.get(&node).is_some_and(|seen| {
        seen.pod.as_ref().is_some_and(|pod| pod.deleting) || seen.workload.as_ref().is_some_and(|known| known.deleting)
    })
}

/// Whether a node's pod is to be replaced: it or its StatefulSet is of another revision, or a person asked for a restart. One that
/// is being deleted comes back as it should be.
pub(super) fn is_outdated(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    is_of_another_revision(desired, observed, node)
        || (!is_leaving(observed, node) && observed.nodes.get(&node).is_some_and(is_to_restart))
}

/// Whether the template has a restart that was asked for after the pod was made.
pub(super) fn is_to_restart(seen: &ObservedNode) -> bool {
    let (Some(workload), Some(pod)) = (&seen.workload, &seen.pod) else { return false };
    workload.restarts.iter().any(|(annotation, at)| pod.restarts.get(annotation) != Some(at))
}

/// Whether a node's pod or StatefulSet is of another revision.
pub(super) fn is_of_another_revision(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    let (Some(wanted), Some(seen)) = (desired.nodes.get(&node), observed.nodes.get(&node)) else { return false };
    if is_leaving(observed, node) {
        return false;
    }
    let pod = seen.pod.as_ref().map(|pod| &pod.restart_revision);
    let workload = seen.workload.as_ref().map(|workload| &workload.restart_revision);
    workload.is_some() && [pod, workload].into_iter().flatten().any(|revision| *revision != wanted.restart_revision)
}
