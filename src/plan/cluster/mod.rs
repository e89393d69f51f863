//! Rules of mode Cluster: slots for a Cluster that is new, and the end of what no node has any more.
//!
//! Agents make their servers members of the Cluster and copies of their shard's primary. Slots are given away here, once all know each
//! other and a primary has the users and functions that its callers need.

pub mod slots;

use std::collections::BTreeMap;

use self::slots::shares;
use super::roles::{data, shards, topology};
use super::{Plan, Step, WaitReason};
use crate::model::cluster::{ClusterNodeId, Shard};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::slots::SlotSet;
use crate::model::topology::{Topology, Unsettled};

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if !desired.in_cluster {
        return;
    }
    let topology = topology(desired, observed);
    forget(observed, &topology, plan);
    let disagreement = first_disagreement(observed, &topology);
    if let Some(what) = disagreement {
        plan.waiting.push(WaitReason::Agreement { what: what.clone() });
    }
    // A server that does not answer may own them, and others that never heard of it do not say so.
    let all_answer = !topology.unsettled.iter().any(|what| matches!(what, Unsettled::Silent { .. }));
    if topology.unowned.is_empty() || !all_answer {
        return;
    }
    let was_never_whole = !observed.initialised;
    if !was_never_whole {
        plan.waiting.push(WaitReason::SlotsLost { slots: topology.unowned.clone() });
    } else if disagreement.is_none() {
        form(desired, observed, &topology, plan);
    }
}

/// The first thing in which servers differ. That a server does not answer at all, or that slots have no owner, is told otherwise, and while
/// they have none no server serves.
fn first_disagreement<'a>(observed: &Observed, topology: &'a Topology) -> Option<&'a Unsettled> {
    topology.unsettled.iter().find(|what| match what {
        Unsettled::Silent { node } => data(observed, *node).is_some(),
        Unsettled::NotServing { .. } => topology.unowned.is_empty(),
        Unsettled::Unowned | Unsettled::Stranger { .. } => false,
        Unsettled::Unmet { .. }
        | Unsettled::Doubted { .. }
        | Unsettled::Disputed { .. }
        | Unsettled::Astray { .. }
        | Unsettled::Divided { .. }
        | Unsettled::SharedEpoch { .. }
        | Unsettled::Open { .. } => true,
    })
}

/// Gives each shard its part of the slots that no server ever owned.
fn form(desired: &Desired, observed: &Observed, topology: &Topology, plan: &mut Plan) {
    // Clients of a primary with slots find users and functions there.
    let is_prepared = |step: &Step| !matches!(step, Step::LoadLibrary { .. } | Step::SetUser { .. });
    if !plan.steps.iter().all(is_prepared) || plan.waiting.contains(&WaitReason::Gathering) {
        return;
    }
    let owned: BTreeMap<Shard, SlotSet> =
        topology.shards.iter().map(|(shard, it)| (*shard, it.slots.clone())).collect();
    let staying = shards(desired).into_iter().collect();
    for (shard, slots) in shares(&topology.unowned, &owned, &staying) {
        let primary = plan.primaries.of(shard.node(0));
        if let Some((node, server)) = primary.and_then(|node| Some((node, data(observed, node)?))) {
            plan.steps.push(Step::AddSlots { node, run_id: server.run_id.clone(), slots });
        }
    }
}

/// Has every server that answers forget what no node has any more, unless that owns slots.
fn forget(observed: &Observed, topology: &Topology, plan: &mut Plan) {
    let owns = |id: &ClusterNodeId| topology.strangers.get(id).map_or(0, SlotSet::count);
    // Who does not answer may have come back under another name. A server that all were told to forget is not taken back for a minute.
    let all_answer = !topology.unsettled.iter().any(|what| matches!(what, Unsettled::Silent { .. }));
    let mut strangers: Vec<&ClusterNodeId> = Vec::new();
    for what in &topology.unsettled {
        let Unsettled::Stranger { viewer, id } = what else { continue };
        if !strangers.contains(&id) {
            strangers.push(id);
        }
        if let Some(server) = data(observed, *viewer).filter(|_| all_answer && owns(id) == 0) {
            plan.steps.push(Step::ForgetMember { node: *viewer, run_id: server.run_id.clone(), gone: id.clone() });
        }
    }
    let told = strangers.into_iter().map(|id| WaitReason::Stranger { id: id.clone(), slots: owns(id) });
    plan.waiting.extend(told);
}

/// Whether any server of the Cluster may remember one that no node has any more.
pub(super) fn is_remembered(desired: &Desired, observed: &Observed) -> bool {
    let topology = topology(desired, observed);
    topology.unsettled.iter().any(|what| matches!(what, Unsettled::Silent { .. } | Unsettled::Stranger { .. }))
}
