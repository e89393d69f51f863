//! A replica that follows a wrong address, long after the Sentinels could have mended it.
//!
//! That is theirs to do, and they do it for every replica that they know. One that follows no server that is alive is on no
//! primary's list, so a Sentinel that was reset or lost its volume never hears of it: that one is left to us.

use std::time::Duration;

use super::roles::{address, config_epoch, data, masters, of_kind, sentinel};
use super::{Plan, Step, safety};
use crate::model::desired::Desired;
use crate::model::observed::{DataServer, Observed, Replication};
use crate::model::{NodeId, NodeKind};

/// Re-points one replica per pass that follows another server than the primary.
pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let Some(primary) = plan.primaries.first() else { return };
    if !desired.has_sentinels() || safety::is_busy(plan) || !had_time_to_repair(desired, observed, primary) {
        return;
    }
    let wrong = of_kind(desired, NodeKind::Data).find_map(|node| {
        let server = data(observed, node)?;
        follows_wrongly(desired, observed, node, server, primary).then_some((node, server))
    });
    if let Some((node, server)) = wrong
        && let (Some(address), Some(config_epoch)) = (address(observed, primary), config_epoch(desired, observed))
    {
        let (run_id, primary) = (server.run_id.clone(), address.clone());
        plan.steps.push(Step::Repoint { node, run_id, primary, config_epoch });
    }
}

/// Twice `failover-timeout`: the Sentinels wait it once before they mend, and may be busy with an election before that.
const fn sentinel_repair_time(desired: &Desired) -> Duration {
    desired.sentinel_settings.failover_timeout.saturating_mul(2)
}

/// Whether every Sentinel answers, has known this very primary for that long, and has no election under way.
fn had_time_to_repair(desired: &Desired, observed: &Observed, primary: NodeId) -> bool {
    of_kind(desired, NodeKind::Sentinel).all(|node| {
        sentinel(observed, node).is_some_and(|server| {
            !server.tilt
                && server.master.as_ref().is_some_and(|master| {
                    Some(&master.address) == address(observed, primary)
                        && master.trouble().is_none()
                        && master.steady_milliseconds.map(Duration::from_millis) >= Some(sentinel_repair_time(desired))
                })
        })
    })
}

fn follows_wrongly(desired: &Desired, observed: &Observed, node: NodeId, server: &DataServer, primary: NodeId) -> bool {
    let Replication::Replica { primary: followed, link_up, link_down_seconds, .. } = &server.replication else {
        return false;
    };
    if Some(followed) == address(observed, primary) {
        return false;
    }
    if *link_up {
        // Nothing says for how long it has followed the wrong server. While any Sentinel knows it, that one will mend it.
        let own = address(observed, node);
        return masters(desired, observed).all(|master| own.is_some_and(|own| !master.replicas.contains_key(own)));
    }
    link_down_seconds.is_some_and(|seconds| Duration::from_secs(seconds) >= sentinel_repair_time(desired))
}
