//! A move of the primary that a person asks for: to the node that they name, once, while nothing else is under way.

use super::handover::move_primary_to;
use super::promotion::{Impossible, Promotion, PromotionBlocker};
use super::reason::RestartReason;
use super::roles::of_kind;
use super::{Plan, RefusalReason, WaitReason, safety};
use crate::model::desired::{Desired, PromotionRequest};
use crate::model::observed::Observed;
use crate::model::{NodeId, NodeKind};

/// Adds the move, or says why there is none. Comes after every other rule: what they still have to do comes first.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if let Some(request) = &desired.promotion {
        plan.promotion = Some(decide(desired, observed, request, plan).unwrap_or_else(Promotion::Held));
    }
}

fn decide(
    desired: &Desired,
    observed: &Observed,
    request: &PromotionRequest,
    plan: &mut Plan,
) -> Result<Promotion, PromotionBlocker> {
    if !desired.has_sentinels() {
        let why = if desired.in_cluster { Impossible::Cluster } else { Impossible::Standalone };
        return Ok(Promotion::Impossible(why));
    }
    let Some(to) = request.node.filter(|node| of_kind(desired, NodeKind::Data).any(|known| known == *node)) else {
        return Ok(Promotion::Impossible(Impossible::NoDataNode));
    };
    // Also after a move of which the operator did not see the end: a Sentinel may finish what it was asked for.
    if plan.primaries.is(to) {
        return Ok(Promotion::Done);
    }
    if let Some(why) = &request.failed {
        return Ok(Promotion::Failed(why.clone()));
    }
    // A roll that waits for an approval has not begun, and a library that waits for others is loaded on the new primary.
    let comes_first = |waiting: &&WaitReason| !matches!(waiting, WaitReason::Approval | WaitReason::Gathering);
    if let Some(first) = plan.waiting.iter().find(comes_first) {
        return Err(PromotionBlocker::Waiting(first.clone()));
    }
    if let Some(refused) = plan.refused.first() {
        return Err(PromotionBlocker::Refused(refused.clone()));
    }
    // A layer that is still being made serves no client.
    if safety::is_busy(plan) || !observed.initialised {
        return Err(PromotionBlocker::Steps);
    }
    let Some(from) = plan.primaries.of(to) else { return Err(PromotionBlocker::Waiting(WaitReason::Primary)) };
    begin(desired, observed, from, to, plan).map_err(PromotionBlocker::Refused)
}

fn begin(
    desired: &Desired,
    observed: &Observed,
    from: NodeId,
    to: NodeId,
    plan: &mut Plan,
) -> Result<Promotion, RefusalReason> {
    if let Some(refusal) = safety::veto(desired, observed, &plan.primaries, from) {
        return Err(refusal);
    }
    plan.steps.push(move_primary_to(desired, observed, from, to, RestartReason::Requested)?);
    Ok(Promotion::Begins)
}
