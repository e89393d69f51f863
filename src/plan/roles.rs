//! Who is primary, by the Sentinels' majority and by its own word; and what follows live roles.

use super::{Plan, Step, Waiting};
use crate::model::desired::Desired;
use crate::model::observed::{DataServer, Observed, ObservedServer, Replication, SentinelServer};
use crate::model::{Mode, NodeId, NodeKind};

/// The live data server of a node.
pub(super) fn data(observed: &Observed, node: NodeId) -> Option<&DataServer> {
    match &observed.nodes.get(&node)?.server {
        ObservedServer::Data(server) => Some(server),
        _ => None,
    }
}

/// The live Sentinel of a node.
pub(super) fn sentinel(observed: &Observed, node: NodeId) -> Option<&SentinelServer> {
    match &observed.nodes.get(&node)?.server {
        ObservedServer::Sentinel(server) => Some(server),
        _ => None,
    }
}

/// Declared nodes of a kind, in order.
pub(super) fn of_kind(desired: &Desired, kind: NodeKind) -> impl Iterator<Item = NodeId> {
    desired.nodes.keys().copied().filter(move |node| node.kind == kind)
}

/// The node that says it is primary and that a majority of the declared Sentinels names. Standalone: the only node.
pub fn primary(desired: &Desired, observed: &Observed) -> Option<NodeId> {
    let says_so = |node: &NodeId| {
        data(observed, *node).is_some_and(|server| matches!(server.replication, Replication::Primary { .. }))
    };
    let sentinels: Vec<NodeId> = of_kind(desired, NodeKind::Sentinel).collect();
    // One that is no longer declared may still be it: it has to be moved before it is removed.
    observed.nodes.keys().copied().filter(|node| node.kind == NodeKind::Data).filter(says_so).find(|node| {
        if desired.mode == Mode::Standalone {
            return true;
        }
        let address = observed.nodes.get(node).and_then(|seen| seen.address.as_ref());
        let votes = sentinels.iter().filter_map(|id| sentinel(observed, *id)?.master.as_ref());
        votes.filter(|master| Some(&master.address) == address).count() > sentinels.len() / 2
    })
}

/// Whether a replica has all that the primary acknowledged a moment ago, by both their words.
pub(super) fn is_in_sync(observed: &Observed, node: NodeId, primary: NodeId) -> bool {
    let address = |node| observed.nodes.get(&node).and_then(|seen| seen.address.clone());
    let (Some(own), Some(leader)) = (data(observed, node), data(observed, primary)) else { return false };
    let Replication::Replica { primary: follows, link_up, syncing, priority } = &own.replication else { return false };
    let Replication::Primary { replicas } = &leader.replication else { return false };
    let is_listed = address(node).is_some_and(|address| replicas.contains_key(&address));
    Some(follows) == address(primary).as_ref() && *link_up && !syncing && *priority > 0 && is_listed
}

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let Some(primary) = plan.dials.primary else {
        plan.waiting.push(Waiting::Primary);
        return;
    };
    for node in of_kind(desired, NodeKind::Data) {
        let Some(pod) = observed.nodes.get(&node).and_then(|seen| seen.pod.as_ref()) else { continue };
        let reads = node != primary;
        if pod.reads != reads && !pod.deleting {
            plan.steps.push(Step::LabelReads { node, pod_uid: pod.uid.clone(), reads });
        }
        if node != primary && !is_in_sync(observed, node, primary) {
            plan.waiting.push(Waiting::Sync { node });
        }
    }
    let known = |node: NodeId| {
        sentinel(observed, node).and_then(|server| server.master.as_ref()).is_some_and(|master| {
            let sentinels = of_kind(desired, NodeKind::Sentinel).count();
            let replicas = of_kind(desired, NodeKind::Data).count();
            master.other_sentinels.len() + 1 >= sentinels && master.replicas.len() + 1 >= replicas
        })
    };
    for node in of_kind(desired, NodeKind::Sentinel).filter(|node| !known(*node)) {
        plan.waiting.push(Waiting::SentinelView { node });
    }
}
