//! Nodes that are no longer declared: the server first, then what the Sentinels remember of it, its address last.

use super::step::RestartReason;
use super::view::View;
use super::{Plan, Step, Waiting, roll};
use crate::model::{Address, NodeId, NodeKind};

/// Plans the next part of a removal, while nothing else is going on.
pub fn plan(view: &View<'_>, plan: &mut Plan) {
    let undeclared: Vec<NodeId> =
        view.observed.nodes.keys().copied().filter(|node| !view.desired.nodes.contains_key(node)).collect();
    let Some(&node) = undeclared.last() else { return };
    let is_busy = view.failover_is_under_way()
        || plan.steps.iter().any(|step| matches!(step, Step::RestartPod { .. } | Step::Switchover { .. }))
        || view.desired.nodes.keys().any(|node| !view.is_whole(*node));
    if is_busy {
        plan.waiting.push(Waiting::Pod { node, trouble: None });
        return;
    }
    let seen = view.seen(node);
    if view.primary == Some(node) {
        roll::move_primary(view, node, RestartReason::ScaleIn, plan);
    } else if let Some(workload) = seen.and_then(|seen| seen.workload.as_ref()) {
        if !workload.deleting {
            plan.steps.push(Step::RemoveNode { node, workload_uid: Some(workload.uid.clone()) });
        }
        plan.waiting.push(Waiting::Pod { node, trouble: None });
    } else if seen.is_some_and(|seen| seen.pod.is_some()) {
        plan.waiting.push(Waiting::Pod { node, trouble: None });
    } else if let Some(sentinel) =
        seen.and_then(|seen| seen.address.as_ref()).and_then(|address| remembers(view, node, address))
    {
        // One at a time: the next one only after this one knows all the others again (`is_whole` above).
        if let Some(server) = view.sentinel(sentinel) {
            plan.steps.push(Step::ResetSentinel { node: sentinel, run_id: server.run_id.clone() });
        }
    } else {
        plan.steps.push(Step::RemoveNode { node, workload_uid: None });
    }
}

/// A Sentinel that still knows the address.
fn remembers(view: &View<'_>, gone: NodeId, address: &Address) -> Option<NodeId> {
    view.nodes(NodeKind::Sentinel).find(|node| {
        let master = view.sentinel(*node).and_then(|server| server.master.as_ref());
        master.is_some_and(|master| match gone.kind {
            NodeKind::Data => master.replicas.contains_key(address),
            NodeKind::Sentinel => master.other_sentinels.values().any(|other| other == address),
        })
    })
}
