//! Replacing pods of an older revision: one node at a time, the primary last and only after it was moved.

use super::roles::{data, is_in_sync, of_kind, sentinel};
use super::step::{ApplyReason, RestartReason};
use super::{Plan, Refused, Step, Waiting};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedServer, ObservedWorkload};
use crate::model::{Mode, NodeId, NodeKind};

/// Flags of a Sentinel's primary under which nobody is disturbed.
const TROUBLE: [&str; 3] = ["s_down", "o_down", "failover_in_progress"];

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let outdated: Vec<NodeId> =
        desired.nodes.keys().copied().filter(|node| is_outdated(desired, observed, *node)).collect();
    if outdated.is_empty() {
        return;
    }
    // A pod that never came up disturbs nobody when it goes: so a reverted revision recovers alone.
    let broken: Vec<NodeId> = outdated.iter().copied().filter(|node| never_came_up(observed, *node)).collect();
    if let Some(node) = broken.first() {
        replace(desired, observed, *node, RestartReason::BrokenRevision, plan);
        return;
    }
    if desired.disruption_needs_approval {
        plan.waiting.push(Waiting::Approval);
        return;
    }
    let Some(node) = next(desired, plan, &outdated) else { return };
    if let Some(refusal) = veto(desired, observed, plan, node) {
        plan.refused.push(refusal);
        return;
    }
    if plan.dials.primary == Some(node) && desired.mode == Mode::Sentinel {
        move_primary(desired, observed, node, plan);
    } else {
        replace(desired, observed, node, RestartReason::Revision, plan);
    }
}

fn is_outdated(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    let wanted = desired.nodes.get(&node).map(|wanted| wanted.restart_revision.as_str());
    let seen = observed.nodes.get(&node);
    let pod = seen.and_then(|seen| seen.pod.as_ref()).filter(|pod| !pod.deleting);
    let workload = seen.and_then(|seen| seen.workload.as_ref());
    pod.is_some_and(|pod| Some(pod.restart_revision.as_str()) != wanted)
        || workload.is_some_and(|workload| Some(workload.restart_revision.as_str()) != wanted)
}

fn never_came_up(observed: &Observed, node: NodeId) -> bool {
    observed.nodes.get(&node).is_some_and(|seen| {
        seen.server == ObservedServer::Unknown
            && seen.pod.as_ref().is_some_and(|pod| !pod.ready && pod.trouble.is_some())
    })
}

/// Replicas by ordinal, then Sentinels, the primary last.
fn next(desired: &Desired, plan: &Plan, outdated: &[NodeId]) -> Option<NodeId> {
    let is_primary = |node: &NodeId| plan.dials.primary == Some(*node);
    let first = outdated.iter().copied().find(|node| !is_primary(node));
    first.or_else(|| outdated.iter().copied().find(|node| is_primary(node) && desired.nodes.contains_key(node)))
}

/// Why this node may not be away now; unknown counts as dangerous.
fn veto(desired: &Desired, observed: &Observed, plan: &Plan, node: NodeId) -> Option<Refused> {
    let others = desired.nodes.keys().copied().filter(|other| *other != node);
    for other in others {
        let seen = observed.nodes.get(&other);
        let is_up = seen.and_then(|seen| seen.pod.as_ref()).is_some_and(|pod| pod.ready && !pod.deleting);
        if !is_up {
            return Some(Refused::AnotherNodeIsDown { node, down: other });
        }
    }
    if desired.mode == Mode::Standalone {
        return None;
    }
    let Some(primary) = plan.dials.primary else { return Some(Refused::Unknown { node, about: node }) };
    for other in of_kind(desired, NodeKind::Data).filter(|other| *other != node && *other != primary) {
        if !is_in_sync(observed, other, primary) {
            return Some(Refused::NoInSyncReplica { node: primary });
        }
    }
    for other in of_kind(desired, NodeKind::Sentinel).filter(|other| *other != node) {
        let calm = sentinel(observed, other).is_some_and(|server| {
            let master = server.master.as_ref();
            !server.tilt && master.is_some_and(|master| TROUBLE.iter().all(|flag| !master.flags.contains(*flag)))
        });
        if !calm {
            return Some(Refused::Unknown { node, about: other });
        }
    }
    None
}

fn move_primary(desired: &Desired, observed: &Observed, primary: NodeId, plan: &mut Plan) {
    let candidates: Vec<NodeId> = of_kind(desired, NodeKind::Data)
        .filter(|node| *node != primary && is_in_sync(observed, *node, primary))
        .collect();
    let (Some(server), false) = (data(observed, primary), candidates.is_empty()) else {
        plan.refused.push(Refused::NoInSyncReplica { node: primary });
        return;
    };
    let masters = of_kind(desired, NodeKind::Sentinel).filter_map(|node| sentinel(observed, node)?.master.as_ref());
    plan.steps.push(Step::Switchover {
        from: primary,
        from_run_id: server.run_id.clone(),
        config_epoch: masters.map(|master| master.config_epoch).max().unwrap_or_default(),
        candidates,
        reason: RestartReason::PrimaryMovesFirst,
    });
}

/// Applies the node's template, then deletes its pod: in this order, so that what comes back is what is wanted.
fn replace(desired: &Desired, observed: &Observed, node: NodeId, reason: RestartReason, plan: &mut Plan) {
    let (Some(wanted), Some(seen)) = (desired.nodes.get(&node), observed.nodes.get(&node)) else { return };
    let is_applied = |workload: &ObservedWorkload| workload.restart_revision == wanted.restart_revision;
    if !seen.workload.as_ref().is_some_and(is_applied) {
        let workload_digest = wanted.workload_digest.clone();
        plan.steps.push(Step::ApplyWorkload { node, workload_digest, reason: ApplyReason::Roll });
        return;
    }
    if let Some(pod) = seen.pod.as_ref().filter(|pod| pod.restart_revision != wanted.restart_revision) {
        plan.steps.push(Step::RestartPod { node, pod_uid: pod.uid.clone(), reason });
    }
}
