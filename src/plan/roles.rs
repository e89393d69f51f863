//! What follows live roles.

use std::collections::BTreeSet;

use super::{Plan, Step, Waiting};
use crate::model::desired::Desired;
use crate::model::observed::Observed;
pub(super) use crate::model::roles::{
    address, config_epoch, data, is_failing_over, is_in_sync, masters, of_kind, primary, sentinel,
};
use crate::model::{Address, NodeId, NodeKind};

/// Whether a Sentinel knows the address of every declared node beside itself and the primary that it watches.
pub(super) fn knows_all(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    let Some(master) = sentinel(observed, node).and_then(|server| server.master.as_ref()) else { return false };
    let others: BTreeSet<&Address> = master.other_sentinels.values().collect();
    desired
        .nodes
        .keys()
        .filter(|other| **other != node)
        .filter_map(|other| Some((other, address(observed, *other)?)))
        .all(|(other, address)| match other.kind {
            NodeKind::Data => *address == master.address || master.replicas.contains_key(address),
            NodeKind::Sentinel => others.contains(address),
        })
}

/// What routes clients: it comes before every other step, however many of those there are.
pub(super) fn route(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let Some(primary) = plan.primary else { return };
    if observed.primary_service != Some(primary) {
        plan.steps.push(Step::PointService { node: primary, version: observed.primary_service_version.clone() });
    }
    for node in of_kind(desired, NodeKind::Data) {
        let Some(pod) = observed.nodes.get(&node).and_then(|seen| seen.pod.as_ref()) else { continue };
        let reads = node != primary;
        if pod.reads != reads && !pod.deleting {
            plan.steps.push(Step::LabelReads { node, pod_uid: pod.uid.clone(), reads });
        }
    }
}

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if is_failing_over(desired, observed) {
        plan.waiting.push(Waiting::Failover);
    }
    let Some(primary) = plan.primary else {
        if !plan.waiting.contains(&Waiting::Failover) {
            plan.waiting.push(Waiting::Primary);
        }
        return;
    };
    for node in of_kind(desired, NodeKind::Data) {
        let has_pod = observed.nodes.get(&node).is_some_and(|seen| seen.pod.is_some());
        if has_pod && node != primary && !is_in_sync(observed, node, primary) {
            plan.waiting.push(Waiting::Sync { node });
        }
    }
    for node in of_kind(desired, NodeKind::Sentinel) {
        let names_it = sentinel(observed, node).and_then(|server| server.master.as_ref()).map(|master| &master.address);
        if names_it != address(observed, primary) || !knows_all(desired, observed, node) {
            plan.waiting.push(Waiting::SentinelView { node });
        }
    }
}
