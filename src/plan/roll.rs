//! Replacing pods of an older revision: one node at a time, the primary last and only after it was moved.

use super::handover::move_primary;
use super::nodes::{is_of_another_revision, is_outdated, is_to_restart, undeclared};
use super::reason::{ApplyReason, RestartReason};
use super::roles::config_epoch;
use super::{Plan, RefusalReason, Step, WaitReason, hold, safety};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedPod, ObservedServer, ObservedWorkload};
use crate::model::{NodeId, NodeKind};

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let mut outdated: Vec<NodeId> =
        desired.nodes.keys().copied().filter(|node| is_outdated(desired, observed, *node)).collect();
    if outdated.is_empty() || safety::is_busy(plan) {
        return;
    }
    if let Some(refusal) = hold::roll(desired, observed, &plan.primaries) {
        plan.refused.push(refusal);
        return;
    }
    // A pod that never came up disturbs no client when it goes: so a reverted revision recovers alone.
    if let Some(node) = outdated.iter().copied().find(|node| never_came_up(observed, *node)) {
        if safety::loses_data(desired, observed, plan.primaries.of(node), node) {
            plan.refused.push(RefusalReason::VolumeBeingDeleted { node });
            return;
        }
        plan.steps.extend(replace(desired, observed, node, RestartReason::BrokenRevision));
        return;
    }
    if desired.disruption_needs_approval {
        // Who asks for a restart by name approves it.
        outdated.retain(|node| !is_of_another_revision(desired, observed, *node));
        if outdated.is_empty() {
            plan.waiting.push(WaitReason::Approval);
            return;
        }
    }
    let is_primary = |node: &NodeId| plan.primaries.is(*node);
    let Some(node) = outdated.iter().copied().find(|node| !is_primary(node)).or(outdated.first().copied()) else {
        return;
    };
    if is_primary(&node) && undeclared(desired, observed).any(|other| other.kind == NodeKind::Data) {
        // Who is to be removed goes before the primary moves: no Sentinel then elects one that leaves.
        return;
    }
    if let Some(refusal) = safety::veto(desired, observed, &plan.primaries, node) {
        plan.refused.push(refusal);
    } else if is_primary(&node) && desired.has_sentinels() {
        match move_primary(desired, observed, node, RestartReason::PrimaryMovesFirst) {
            Ok(step) => plan.steps.push(step),
            Err(refusal) => plan.refused.push(refusal),
        }
    } else {
        plan.steps.extend(replace(desired, observed, node, RestartReason::Revision));
    }
}

/// Kubernetes does not start its pod, or its engine does not load the files: a layer that is made again, with an older engine than wrote them,
/// waited for a person while the right image was declared.
fn never_came_up(observed: &Observed, node: NodeId) -> bool {
    observed.nodes.get(&node).is_some_and(|seen| {
        let is_troubled =
            |pod: &ObservedPod| pod.trouble.is_some() || seen.away.as_ref().is_some_and(|away| away.words.is_some());
        let is_broken = |pod: &ObservedPod| !pod.ready && (seen.loads_nothing || is_troubled(pod));
        seen.server == ObservedServer::Unknown && seen.pod.as_ref().is_some_and(is_broken)
    })
}

/// Applies the node's template, then deletes its pod: in this order, so that what comes back is what is wanted.
fn replace(desired: &Desired, observed: &Observed, node: NodeId, reason: RestartReason) -> Option<Step> {
    let (wanted, seen) = (desired.nodes.get(&node)?, observed.nodes.get(&node)?);
    let is_applied = |workload: &ObservedWorkload| workload.restart_revision == wanted.restart_revision;
    if !seen.workload.as_ref().is_some_and(is_applied) {
        let workload_digest = wanted.workload_digest.clone();
        return Some(Step::ApplyWorkload { node, workload_digest, reason: ApplyReason::Roll });
    }
    let is_old = |pod: &&ObservedPod| pod.restart_revision != wanted.restart_revision || is_to_restart(seen);
    let pod = seen.pod.as_ref().filter(is_old)?;
    // A pod that never came up is replaced whichever node is primary; elsewhere it matters that this node is not.
    let config_epoch = config_epoch(desired, observed).filter(|_| reason == RestartReason::Revision);
    let ends_claim = seen.ending_claim.is_some();
    Some(Step::RestartPod { node, pod_uid: pod.uid.clone(), config_epoch, ends_claim, reason })
}
