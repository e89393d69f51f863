//! What follows live roles.

use std::collections::BTreeSet;

use super::{Plan, Step, WaitReason};
use crate::model::cluster::Shard;
use crate::model::desired::Desired;
use crate::model::observed::{Observed, Replication};
pub(super) use crate::model::roles::{
    address, config_epoch, data, is_failing_over, is_in_sync, masters, of_kind, primaries, sentinel, shards, topology,
};
use crate::model::{Address, NodeId, NodeKind, PodRole};

/// Whether a Sentinel knows the address of every declared node next to itself and the primary that it watches.
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
    // A Cluster's Service selects every data pod that is ready: any of them tells a client where to go.
    if let Some(primary) = plan.primaries.first().filter(|_| !desired.in_cluster)
        && observed.primary_service != Some(primary)
    {
        plan.steps.push(Step::PointService { node: primary, version: observed.primary_service_version.clone() });
    }
    // While no primary is known, labels stay as they are, as the primary's Service does.
    let label = |node: &NodeId| label(desired, observed, *node, plan.primaries.of(*node)?);
    // The primaries last: no two pods are called so at once.
    let (leading, others): (Vec<&NodeId>, Vec<&NodeId>) =
        observed.nodes.keys().partition(|node| plan.primaries.is(**node));
    let labels: Vec<Step> = others.into_iter().chain(leading).filter_map(label).collect();
    plan.steps.extend(labels);
}

/// The labels that a pod should have and does not.
fn label(desired: &Desired, observed: &Observed, node: NodeId, primary: NodeId) -> Option<Step> {
    let pod = observed.nodes.get(&node)?.pod.as_ref().filter(|pod| !pod.deleting)?;
    // Who reads from a node that is to be removed is not for this rule to change.
    let reads = if desired.nodes.contains_key(&node) { node != primary } else { pod.reads };
    let reads = (node.kind == NodeKind::Data).then_some(reads);
    let role = role(observed, node, pod.role, primary);
    let is_so = reads.is_none_or(|reads| pod.reads == reads) && pod.role == role;
    (!is_so).then(|| Step::LabelPod { node, pod_uid: pod.uid.clone(), reads, role })
}

/// The role of a node; `None`: it is not known. A replica that does not answer is still one: only the primary could be another, and
/// that is known.
fn role(observed: &Observed, node: NodeId, labelled: Option<PodRole>, primary: NodeId) -> Option<PodRole> {
    if node.kind == NodeKind::Sentinel {
        return Some(PodRole::Sentinel);
    }
    if node == primary {
        return Some(PodRole::Primary);
    }
    match data(observed, node).map(|server| &server.replication) {
        Some(Replication::Replica { .. }) => Some(PodRole::Replica),
        // It says that it is primary, and the Sentinels name another.
        Some(Replication::Primary { .. }) => None,
        None => labelled.filter(|role| *role == PodRole::Replica),
    }
}

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if is_failing_over(desired, observed) {
        plan.waiting.push(WaitReason::Failover);
    }
    if desired.in_cluster {
        let without = |shard: &Shard| plan.primaries.of(shard.node(0)).is_none();
        plan.waiting.extend(shards(desired).into_iter().filter(without).map(|shard| WaitReason::Owner { shard }));
    } else if plan.primaries.first().is_none() {
        if !plan.waiting.contains(&WaitReason::Failover) {
            plan.waiting.push(WaitReason::Primary);
        }
        return;
    }
    for node in of_kind(desired, NodeKind::Data) {
        let Some(primary) = plan.primaries.of(node) else { continue };
        let has_pod = observed.nodes.get(&node).is_some_and(|seen| seen.pod.is_some());
        if has_pod && node != primary && !is_in_sync(observed, node, primary) {
            plan.waiting.push(WaitReason::Sync { node });
        }
    }
    for node in of_kind(desired, NodeKind::Sentinel) {
        let Some(primary) = plan.primaries.of(node) else { continue };
        let names_it = sentinel(observed, node).and_then(|server| server.master.as_ref()).map(|master| &master.address);
        if names_it != address(observed, primary) || !knows_all(desired, observed, node) {
            plan.waiting.push(WaitReason::SentinelView { node });
        }
    }
}
