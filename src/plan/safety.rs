//! Whether a node may be away now, and if not, which fact forbids it.
//!
//! Asked by every rule that takes a server away by our hand. It can only remove steps, never add one, and what is unknown
//! counts as dangerous.

use super::nodes::is_leaving;
use super::roles::{address, data, is_in_sync, knows_all, of_kind, sentinel, topology};
use super::{Plan, RefusalReason, Step};
use crate::model::cluster::Shard;
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedNode, ObservedServer, SentinelMaster};
use crate::model::roles::Primaries;
use crate::model::{NodeId, NodeKind};

/// How long a node that is no longer declared may need to come back from a restart, seconds.
const RETURNS_WITHIN: u64 = 60;

/// Whether the plan has no room for a disruption: it has one, or it still mends what a restart builds on. What running
/// servers are told does not count: a library that is refused for want of memory would hold the roll that brings memory.
pub(super) fn is_busy(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| {
        step.is_disruptive()
            || matches!(step, Step::ApplyService { .. } | Step::ApplyWorkload { .. } | Step::PatchConfig { .. })
    })
}

/// The fact that forbids to take this node away now; `None`: it may go (the primary, once it was moved).
pub(super) fn veto(
    desired: &Desired,
    observed: &Observed,
    primaries: &Primaries,
    node: NodeId,
) -> Option<RefusalReason> {
    let primary = primaries.of(node);
    let is_away = |other: &NodeId| {
        if *other == node {
            return false;
        }
        if desired.nodes.contains_key(other) {
            !is_up(observed, *other)
        } else {
            is_undeclared_and_away(observed, *other)
        }
    };
    let declared = desired.nodes.keys();
    if let Some(down) = declared.chain(observed.nodes.keys()).copied().find(|other| is_away(other)) {
        return Some(RefusalReason::AnotherNodeIsDown { node, down });
    }
    if loses_data(desired, observed, primary, node) {
        return Some(RefusalReason::VolumeBeingDeleted { node });
    }
    if desired.is_single_node() {
        return None;
    }
    let Some(primary) = primary else { return Some(RefusalReason::Unknown { node, about: node }) };
    let is_of_shard = |other: &NodeId| Shard::of(*other) == Shard::of(primary);
    let of_shard = || of_kind(desired, NodeKind::Data).filter(is_of_shard);
    if desired.in_cluster {
        if let Some(what) = topology(desired, observed).unsettled.first() {
            return Some(RefusalReason::Unsettled { node, what: what.clone() });
        }
        if of_shard().eq([node]) {
            // A shard of one node is away while that restarts, as a layer of one node is.
            return None;
        }
    }
    let others = || of_shard().filter(|other| *other != primary && *other != node);
    if let Some(behind) = others().find(|other| !is_in_sync(observed, *other, primary)) {
        return Some(RefusalReason::NotInSync { node, behind });
    }
    if node == primary && others().next().is_none() {
        return Some(RefusalReason::NoInSyncReplica { node: primary });
    }
    // It may elect by an agent's order, of which the others, who see a primary in good health, know nothing.
    let electing = sentinel(observed, node).and_then(|server| server.master.as_ref());
    if electing.is_some_and(SentinelMaster::is_failing_over) {
        return Some(RefusalReason::Electing { node });
    }
    let sentinels = of_kind(desired, NodeKind::Sentinel).filter(|other| *other != node);
    if let Some(about) = sentinels.into_iter().find(|other| !is_stable(desired, observed, *other, primary)) {
        return Some(RefusalReason::Unknown { node, about });
    }
    (!leaves_a_majority(desired, observed, node)).then_some(RefusalReason::NoSentinelMajority { node })
}

/// Whether a node that is no longer declared is away: it goes, or it has not been back since it was restarted. One that stays away is
/// not waited for: a Sentinel may be removed only after the roll.
fn is_undeclared_and_away(observed: &Observed, node: NodeId) -> bool {
    let returns = |seen: &ObservedNode| {
        seen.workload.is_some() && seen.away.as_ref().is_some_and(|away| away.seconds < RETURNS_WITHIN)
    };
    is_leaving(observed, node) || observed.nodes.get(&node).is_some_and(returns)
}

/// Whether a node's volume goes with its pod, and not enough other nodes have its data: one whose volume stays, or two, as in any roll.
/// While no node is primary it is not known who has it.
pub(crate) fn loses_data(desired: &Desired, observed: &Observed, primary: Option<NodeId>, node: NodeId) -> bool {
    let ends = |node: NodeId| observed.nodes.get(&node).is_some_and(|seen| seen.ending_claim.is_some());
    if !ends(node) || !desired.reads_files {
        return false;
    }
    let has_it = |other: &NodeId| {
        let leads = primary == Some(*other) && data(observed, *other).is_some();
        *other != node && (leads || primary.is_some_and(|primary| is_in_sync(observed, *other, primary)))
    };
    let holders: Vec<NodeId> = of_kind(desired, NodeKind::Data).filter(has_it).collect();
    holders.len() < 2 && holders.into_iter().all(ends)
}

/// Whether the node serves, by Kubernetes' word and its own.
fn is_up(observed: &Observed, node: NodeId) -> bool {
    observed.nodes.get(&node).is_some_and(|seen| {
        seen.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting)
            && matches!(seen.server, ObservedServer::Data(_) | ObservedServer::Sentinel(_))
    })
}

/// Whether a Sentinel answers, sees this primary healthy with no failover under way, and knows everybody.
pub(super) fn is_stable(desired: &Desired, observed: &Observed, node: NodeId, primary: NodeId) -> bool {
    sentinel(observed, node).is_some_and(|server| {
        !server.tilt
            && server
                .master
                .as_ref()
                .is_some_and(|master| Some(&master.address) == address(observed, primary) && master.trouble().is_none())
    }) && knows_all(desired, observed, node)
}

/// Whether the Sentinels that answer, without this one, can still elect: an election needs most of those that a Sentinel
/// remembers, those that are long gone included. Two Sentinels or one can never do without each other.
fn leaves_a_majority(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    let declared: Vec<NodeId> = of_kind(desired, NodeKind::Sentinel).collect();
    if node.kind != NodeKind::Sentinel || declared.len() < 3 {
        return true;
    }
    let known = |id: &NodeId| Some(1 + sentinel(observed, *id)?.master.as_ref()?.other_sentinels.len());
    let remembered = declared.iter().filter_map(known).max().unwrap_or(usize::MAX);
    let left = observed.nodes.keys().filter(|other| **other != node && sentinel(observed, **other).is_some()).count();
    left > remembered / 2
}
