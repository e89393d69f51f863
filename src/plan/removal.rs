//! Nodes that are no longer declared: the server first, then what the Sentinels remember of it, its address last.

use super::roles::{config_epoch, data, is_in_sync, of_kind};
use super::step::RestartReason;
use super::{Plan, Refused, Step, Waiting, forget, roll, safety};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::{Mode, NodeId, NodeKind};

/// Plans the next part of a removal: one node at a time, the primary last. A move of the primary has to have all replicas
/// that could be elected as its candidates, so those that go are gone by then.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let is_primary = |node: &NodeId| plan.dials.primary == Some(*node);
    let has_server =
        |node: &NodeId| observed.nodes.get(node).is_some_and(|seen| seen.workload.is_some() || seen.pod.is_some());
    // Servers before the addresses of those that are gone: what is still there is still announced.
    let rank = |node: &NodeId| (has_server(node), !is_primary(node), *node);
    let Some(node) = undeclared(desired, observed).max_by_key(rank) else { return };
    let because = match next(desired, observed, plan, node) {
        Ok(step) => {
            plan.steps.extend(step);
            None
        }
        Err(refusal) => Some(refusal),
    };
    plan.waiting.push(Waiting::Removal { node, because });
}

/// Nodes of which something is left and which are no longer declared, in order.
pub(super) fn undeclared<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = NodeId> + 'a {
    observed.nodes.keys().copied().filter(|node| !desired.nodes.contains_key(node))
}

/// The next step of a removal; none: it is under way, or something else comes first.
fn next(desired: &Desired, observed: &Observed, plan: &Plan, node: NodeId) -> Result<Option<Step>, Refused> {
    let Some(seen) = observed.nodes.get(&node) else { return Ok(None) };
    if safety::is_busy(plan) || safety::is_leaving(observed, node) {
        return Ok(None);
    }
    if let Some(held) = plan.refused.iter().find(|refused| refused.node() == node) {
        return Err(held.clone());
    }
    let Some(workload) = &seen.workload else {
        // Without its StatefulSet a pod that is left over ends by garbage collection.
        let is_done = seen.pod.is_none() && !forget::is_remembered(desired, observed);
        return Ok(is_done.then_some(Step::RemoveNode { node, workload_uid: None, config_epoch: None }));
    };
    // The document of a pod that waits for its turn in a roll still names the Sentinel: that pod's agent would introduce it again,
    // so it could never be forgotten, and while it is remembered too few are left for the turn to come.
    let names_it = |other: NodeId| roll::is_outdated(desired, observed, other);
    if node.kind == NodeKind::Sentinel && of_kind(desired, NodeKind::Sentinel).any(names_it) {
        return Ok(None);
    }
    if let Some(refusal) = safety::veto(desired, observed, plan.dials.primary, node) {
        return Err(refusal);
    }
    if plan.dials.primary == Some(node) && desired.mode == Mode::Sentinel {
        return move_primary(desired, observed, node, RestartReason::ScaleIn).map(Some);
    }
    let config_epoch = config_epoch(desired, observed);
    Ok(Some(Step::RemoveNode { node, workload_uid: Some(workload.uid.clone()), config_epoch }))
}

/// The move of the primary to one of the declared replicas.
pub(super) fn move_primary(
    desired: &Desired,
    observed: &Observed,
    from: NodeId,
    reason: RestartReason,
) -> Result<Step, Refused> {
    let candidates: Vec<NodeId> =
        of_kind(desired, NodeKind::Data).filter(|node| *node != from && is_in_sync(observed, *node, from)).collect();
    match (data(observed, from), config_epoch(desired, observed)) {
        (Some(server), Some(config_epoch)) if !candidates.is_empty() => {
            Ok(Step::Switchover { from, from_run_id: server.run_id.clone(), config_epoch, candidates, reason })
        }
        _ => Err(Refused::NoInSyncReplica { node: from }),
    }
}
