//! New revisions, node by node: Sentinels, then replicas, the primary last and only after it was moved away.
//!
//! The one rule that restarts pods. It does so to one node at a time, while every other node is seen to do its part. A pod
//! that never came up is replaced whatever else is down: it serves nobody.

use super::step::{ApplyReason, RestartReason};
use super::view::View;
use super::{Plan, Refused, Step, Waiting, has_sentinels};
use crate::model::desired::DesiredNode;
use crate::model::observed::{ObservedPod, ObservedServer};
use crate::model::{NodeId, NodeKind};

/// Plans the next restart, if one is due and safe.
pub fn plan(view: &View<'_>, plan: &mut Plan) {
    let stale: Vec<NodeId> = order(view).into_iter().filter(|node| is_stale(view, *node)).collect();
    if stale.is_empty() {
        return;
    }
    let broken: Vec<NodeId> = stale.iter().copied().filter(|node| is_broken(view, *node)).collect();
    // Nothing was ever served by a layer that was never Ready: all of it may be replaced at once.
    let at_once = if view.observed.initialised { 1 } else { broken.len() };
    if !broken.is_empty() {
        for node in broken.into_iter().take(at_once) {
            restart(view, node, RestartReason::BrokenRevision, plan);
        }
        return;
    }
    if view.desired.disruption_needs_approval {
        plan.waiting.push(Waiting::Approval);
        return;
    }
    let Some(&next) = stale.first() else { return };
    if view.failover_is_under_way() {
        return;
    }
    if let Some(down) = view.desired.nodes.keys().copied().find(|node| *node != next && !view.is_whole(*node)) {
        let is_unknown = matches!(view.seen(down).map(|seen| &seen.server), None | Some(ObservedServer::Unknown));
        plan.refused.push(if is_unknown {
            Refused::Unknown { node: next, about: down }
        } else {
            Refused::AnotherNodeIsDown { node: next, down }
        });
        return;
    }
    if view.primary == Some(next) && has_sentinels(view.desired.mode) {
        move_primary(view, next, RestartReason::PrimaryMovesFirst, plan);
    } else {
        restart(view, next, RestartReason::Revision, plan);
    }
}

/// Sentinels, then data nodes from the highest ordinal down, the primary last.
fn order(view: &View<'_>) -> Vec<NodeId> {
    let mut data: Vec<NodeId> = view.nodes(NodeKind::Data).filter(|node| view.primary != Some(*node)).collect();
    data.reverse();
    view.nodes(NodeKind::Sentinel).chain(data).chain(view.primary).collect()
}

/// Whether the node's StatefulSet or pod is not of the desired restart revision.
fn is_stale(view: &View<'_>, node: NodeId) -> bool {
    let Some(wanted) = view.desired.nodes.get(&node) else { return false };
    let Some(workload) = view.seen(node).and_then(|seen| seen.workload.as_ref()) else { return false };
    if workload.deleting {
        return false;
    }
    let pod_is_stale =
        view.pod(node).is_some_and(|pod| !pod.deleting && pod.restart_revision != wanted.restart_revision);
    workload.restart_revision != wanted.restart_revision || pod_is_stale
}

/// Whether the node's pod serves nobody and cannot by itself.
fn is_broken(view: &View<'_>, node: NodeId) -> bool {
    let is_silent = matches!(view.seen(node).map(|seen| &seen.server), None | Some(ObservedServer::Unknown));
    is_silent && view.pod(node).is_some_and(|pod| !pod.ready && pod.trouble.is_some())
}

fn restart(view: &View<'_>, node: NodeId, reason: RestartReason, plan: &mut Plan) {
    let Some(wanted) = view.desired.nodes.get(&node) else { return };
    apply(view, node, wanted, plan);
    if let Some(ObservedPod { uid, .. }) = view.pod(node).filter(|_| !view.is_of_revision(node, wanted)) {
        plan.steps.push(Step::RestartPod { node, pod_uid: uid.clone(), reason });
    }
}

fn apply(view: &View<'_>, node: NodeId, wanted: &DesiredNode, plan: &mut Plan) {
    let workload = view.seen(node).and_then(|seen| seen.workload.as_ref());
    if workload.is_some_and(|workload| workload.workload_digest != wanted.workload_digest) {
        let workload_digest = wanted.workload_digest.clone();
        plan.dials.apply.insert(node, workload_digest.clone());
        plan.steps.push(Step::ApplyWorkload { node, workload_digest, reason: ApplyReason::Roll });
    }
}

/// Moves the primary to a replica that is in sync, one of the desired revision first.
pub fn move_primary(view: &View<'_>, from: NodeId, reason: RestartReason, plan: &mut Plan) {
    let mut candidates: Vec<NodeId> =
        view.nodes(NodeKind::Data).filter(|node| *node != from && view.is_in_sync(*node)).collect();
    candidates.sort_by_key(|node| {
        (view.desired.nodes.get(node).is_none_or(|wanted| !view.is_of_revision(*node, wanted)), *node)
    });
    let epoch = view
        .nodes(NodeKind::Sentinel)
        .filter_map(|node| view.sentinel(node)?.master.as_ref())
        .map(|master| master.config_epoch)
        .max();
    match (candidates.is_empty(), view.data(from), epoch) {
        (false, Some(server), Some(config_epoch)) => plan.steps.push(Step::Switchover {
            from,
            from_run_id: server.run_id.clone(),
            config_epoch,
            candidates,
            reason,
        }),
        _ => plan.refused.push(Refused::NoInSyncReplica { node: from }),
    }
}
