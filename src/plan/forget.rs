//! Addresses that the Sentinels remember and no node has any more: made forgotten, one Sentinel at a time.
//!
//! A Sentinel never forgets by itself, and who is long gone still counts where a majority is needed. `SENTINEL RESET` makes
//! it forget everybody and find them again from the primary and from the others' announcements. The Sentinel documentation
//! ("Removing Sentinels") asks for 30 s between two of them. We keep no memory of the last reset, and need none: a reset
//! sets the Sentinel's own `role-reported-time` of its primary to zero, so all of them together say when the last one was.

use std::collections::BTreeSet;

use super::roles::{address, config_epoch, data, is_in_sync, of_kind, sentinel};
use super::{Plan, Step, WaitReason, cluster, safety};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedNode, Replication};
use crate::model::{Address, NodeId, NodeKind};

/// Time between two resets.
pub(crate) const RESET_SPACING_MILLISECONDS: u64 = 30_000;

/// Tells who remembers too much, and resets one of them when all is stable.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if !desired.has_sentinels() {
        return;
    }
    let remembering: Vec<NodeId> =
        of_kind(desired, NodeKind::Sentinel).filter(|node| !stale(desired, observed, *node).is_empty()).collect();
    plan.waiting.extend(remembering.iter().map(|node| WaitReason::Forgetting { node: *node }));
    let Some(primary) = plan.primaries.first() else { return };
    if safety::is_busy(plan) || !is_safe_to_reset(desired, observed, primary) {
        return;
    }
    let announced = announced(observed, primary);
    let useful = remembering.into_iter().find(|node| stale(desired, observed, *node).is_disjoint(&announced));
    if let Some(node) = useful
        && let (Some(server), Some(config_epoch)) = (sentinel(observed, node), config_epoch(desired, observed))
    {
        plan.steps.push(Step::ResetSentinel { node, run_id: server.run_id.clone(), config_epoch });
    }
}

/// Whether any declared Sentinel remembers an address that no node has, or cannot be asked.
pub(super) fn is_remembered(desired: &Desired, observed: &Observed) -> bool {
    if desired.in_cluster {
        return cluster::is_remembered(desired, observed);
    }
    of_kind(desired, NodeKind::Sentinel).any(|node| {
        sentinel(observed, node).is_none_or(|server| server.master.is_none())
            || !stale(desired, observed, node).is_empty()
    })
}

/// Addresses that a Sentinel remembers and no node has.
fn stale(desired: &Desired, observed: &Observed, node: NodeId) -> BTreeSet<Address> {
    let Some(master) = sentinel(observed, node).and_then(|server| server.master.as_ref()) else {
        return BTreeSet::new();
    };
    // A node that is only still to be removed has its address; one of which only the Service is left has none to keep.
    let is_there = |id: &NodeId| {
        desired.nodes.contains_key(id)
            || observed.nodes.get(id).is_some_and(|seen| seen.workload.is_some() || seen.pod.is_some())
    };
    let has_it =
        |known: &Address| observed.nodes.iter().any(|(id, seen)| is_there(id) && seen.address.as_ref() == Some(known));
    master.replicas.keys().chain(master.other_sentinels.values()).filter(|known| !has_it(known)).cloned().collect()
}

/// Addresses that the primary itself lists: a Sentinel that is reset would find them again at once.
fn announced(observed: &Observed, primary: NodeId) -> BTreeSet<Address> {
    match data(observed, primary).map(|server| &server.replication) {
        Some(Replication::Primary { replicas }) => replicas.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

/// Whether a Sentinel may be made to forget: everything that it has to find again is where it will look, no election is
/// near, every other Sentinel knows all, and the last reset was long enough ago.
fn is_safe_to_reset(desired: &Desired, observed: &Observed, primary: NodeId) -> bool {
    // One that is there without a Service still announces an address, which is not known.
    let has_address =
        |(_, seen): (&NodeId, &ObservedNode)| seen.address.is_some() || (seen.workload.is_none() && seen.pod.is_none());
    let replicas_follow = of_kind(desired, NodeKind::Data)
        .filter(|node| *node != primary)
        .all(|node| is_in_sync(observed, node, primary));
    let is_rested = |node: NodeId| {
        let master = sentinel(observed, node).and_then(|server| server.master.as_ref());
        let steady = master.and_then(|master| master.steady_milliseconds);
        steady.is_some_and(|steady| steady >= RESET_SPACING_MILLISECONDS)
    };
    desired.nodes.keys().all(|node| address(observed, *node).is_some())
        && observed.nodes.iter().all(has_address)
        && replicas_follow
        && of_kind(desired, NodeKind::Sentinel)
            .all(|node| is_rested(node) && safety::is_stable(desired, observed, node, primary))
}
