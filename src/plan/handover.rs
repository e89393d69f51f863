//! The planned move of the primary to a replica.

use super::reason::{RefusalReason, RestartReason};
use super::roles::{config_epoch, data, is_in_sync, of_kind};
use super::step::Step;
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::{NodeId, NodeKind};

/// The move of the primary to one of the declared replicas.
pub(super) fn move_primary(
    desired: &Desired,
    observed: &Observed,
    from: NodeId,
    reason: RestartReason,
) -> Result<Step, RefusalReason> {
    let candidates: Vec<NodeId> =
        of_kind(desired, NodeKind::Data).filter(|node| *node != from && is_in_sync(observed, *node, from)).collect();
    let to = None;
    match (data(observed, from), config_epoch(desired, observed)) {
        (Some(server), Some(config_epoch)) if !candidates.is_empty() => {
            Ok(Step::Switchover { from, from_run_id: server.run_id.clone(), config_epoch, candidates, to, reason })
        }
        _ => Err(RefusalReason::NoInSyncReplica { node: from }),
    }
}

pub(super) fn move_primary_to(
    desired: &Desired,
    observed: &Observed,
    from: NodeId,
    wanted: NodeId,
    reason: RestartReason,
) -> Result<Step, RefusalReason> {
    let mut step = move_primary(desired, observed, from, reason)?;
    if let Step::Switchover { candidates, to, .. } = &mut step {
        if !candidates.contains(&wanted) {
            return Err(RefusalReason::NotInSync { node: from, behind: wanted });
        }
        *to = Some(wanted);
    }
    Ok(step)
}
