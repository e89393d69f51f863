//! Nodes that are no longer declared: the server first, then what the Sentinels remember of it, its address last.

use super::roles::{data, is_in_sync, of_kind, sentinel};
use super::step::RestartReason;
use super::{Plan, Refused, Step, Waiting};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, SentinelMaster};
use crate::model::{Address, NodeId, NodeKind};

/// Plans the next part of a removal, while nothing else is to be done or waited for.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let Some(node) = observed.nodes.keys().copied().rfind(|node| !desired.nodes.contains_key(node)) else { return };
    let seen = observed.nodes.get(&node);
    let is_calm = plan.steps.is_empty()
        && plan.waiting.is_empty()
        && plan.refused.is_empty()
        && !is_failing_over(desired, observed);
    plan.waiting.push(Waiting::Pod { node, trouble: None });
    if !is_calm {
        return;
    }
    let workload = seen.and_then(|seen| seen.workload.as_ref());
    if says_primary(observed, node) {
        move_away(desired, observed, node, plan);
    } else if let Some(workload) = workload {
        if !workload.deleting {
            plan.steps.push(Step::RemoveNode { node, workload_uid: Some(workload.uid.clone()) });
        }
    } else if seen.is_none_or(|seen| seen.pod.is_none()) {
        let address = seen.and_then(|seen| seen.address.as_ref());
        plan.steps.extend(match address.and_then(|address| remembering(desired, observed, node, address)) {
            // One at a time: the next only after this one knows all the others again (`Waiting::SentinelView`).
            Some(step) => Some(step),
            None => Some(Step::RemoveNode { node, workload_uid: None }),
        });
    }
}

fn masters<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = (NodeId, &'a SentinelMaster)> {
    of_kind(desired, NodeKind::Sentinel).filter_map(|node| Some((node, sentinel(observed, node)?.master.as_ref()?)))
}

fn is_failing_over(desired: &Desired, observed: &Observed) -> bool {
    masters(desired, observed).any(|(_, master)| master.flags.contains("failover_in_progress"))
}

/// Whether an undeclared data node is the primary: most Sentinels name it, so it is moved away before it is removed.
fn says_primary(observed: &Observed, node: NodeId) -> bool {
    use crate::model::observed::Replication;
    data(observed, node).is_some_and(|server| matches!(server.replication, Replication::Primary { .. }))
}

fn move_away(desired: &Desired, observed: &Observed, from: NodeId, plan: &mut Plan) {
    let candidates: Vec<NodeId> =
        of_kind(desired, NodeKind::Data).filter(|node| is_in_sync(observed, *node, from)).collect();
    let epoch = masters(desired, observed).map(|(_, master)| master.config_epoch).max();
    match (data(observed, from), epoch) {
        (Some(server), Some(config_epoch)) if !candidates.is_empty() => plan.steps.push(Step::Switchover {
            from,
            from_run_id: server.run_id.clone(),
            config_epoch,
            candidates,
            reason: RestartReason::ScaleIn,
        }),
        _ => plan.refused.push(Refused::NoInSyncReplica { node: from }),
    }
}

/// The reset of a Sentinel that still knows the address.
fn remembering(desired: &Desired, observed: &Observed, gone: NodeId, address: &Address) -> Option<Step> {
    let knows = |master: &SentinelMaster| match gone.kind {
        NodeKind::Data => master.replicas.contains_key(address),
        NodeKind::Sentinel => master.other_sentinels.values().any(|other| other == address),
    };
    let (node, _) = masters(desired, observed).find(|(_, master)| knows(master))?;
    Some(Step::ResetSentinel { node, run_id: sentinel(observed, node)?.run_id.clone() })
}
