//! Nodes that are no longer declared: the server first, then what the Sentinels remember of it, its address last.

use super::handover::move_primary;
use super::nodes::{is_leaving, is_outdated, undeclared};
use super::reason::RestartReason;
use super::roles::{config_epoch, of_kind};
use super::{Plan, RefusalReason, Step, WaitReason, forget, safety};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::{NodeId, NodeKind};

/// Plans the next part of a removal: one node at a time, the primary last. A move of the primary has to have all replicas
/// that could be elected as its candidates, so those that go are gone by then.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let is_primary = |node: &NodeId| plan.primaries.is(*node);
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
    plan.waiting.push(WaitReason::Removal { node, because });
}

/// The next step of a removal; none: it is under way, or something else comes first.
fn next(desired: &Desired, observed: &Observed, plan: &Plan, node: NodeId) -> Result<Option<Step>, RefusalReason> {
    let Some(seen) = observed.nodes.get(&node) else { return Ok(None) };
    if safety::is_busy(plan) || is_leaving(observed, node) {
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
    let names_it = |other: NodeId| is_outdated(desired, observed, other);
    if node.kind == NodeKind::Sentinel && of_kind(desired, NodeKind::Sentinel).any(names_it) {
        return Ok(None);
    }
    if let Some(refusal) = safety::veto(desired, observed, &plan.primaries, node) {
        return Err(refusal);
    }
    if plan.primaries.is(node) && desired.has_sentinels() {
        return move_primary(desired, observed, node, RestartReason::ScaleIn).map(Some);
    }
    let config_epoch = config_epoch(desired, observed);
    Ok(Some(Step::RemoveNode { node, workload_uid: Some(workload.uid.clone()), config_epoch }))
}
