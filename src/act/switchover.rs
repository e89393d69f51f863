//! The planned move of the primary: makes sure that it is still the one that the plan saw, and hands over to
//! `redis::switchover`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::step::Means;
use super::{Ending, Error, redis};
use crate::model::{NodeId, NodeKind};
use crate::plan::Step;
use crate::redis::switchover::{Switchover, switchover};
use crate::redis::{Connection, sentinel};

/// How long the election may take before the move is given up; measured at 0.1 to 0.4 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Moves the primary as the step says.
pub async fn switch(means: Means<'_>, step: &Step) -> Result<Ending, Error> {
    let Step::Switchover { from, from_run_id, candidates, .. } = step else {
        return Ok(Ending::Dropped("not a switchover".to_owned()));
    };
    let dropped = |why: &str| Ok(Ending::Dropped(why.to_owned()));
    let Some(connection) = means.connections.get(from) else { return dropped("no connection to the primary") };
    if !redis::is_process(connection, from_run_id).await? {
        return dropped("the primary was restarted");
    }
    let whereabouts = |node: &NodeId| Some((means.addresses.get(node)?.clone(), means.endpoints.get(node)?.clone()));
    let Some(from) = whereabouts(from) else { return dropped("the primary has no address") };
    let request = Switchover {
        master_name: means.desired.master_name.clone(),
        from,
        others: candidates.iter().filter_map(whereabouts).collect(),
        // The plan chose among those whose pods stay.
        ending: BTreeSet::new(),
        sentinels: of_kind(means, NodeKind::Sentinel).filter_map(|node| means.endpoints.get(&node).cloned()).collect(),
        failover_timeout: Duration::from_millis(means.desired.sentinel_settings.failover_timeout_milliseconds),
        patience: PATIENCE,
    };
    switchover(&request).await?;
    Ok(Ending::Done)
}

fn of_kind(means: Means<'_>, kind: NodeKind) -> impl Iterator<Item = NodeId> {
    means.desired.nodes.keys().copied().filter(move |node| node.kind == kind)
}

/// The highest `config-epoch` that the Sentinels know now.
pub(super) async fn epoch(means: Means<'_>) -> Result<Option<u64>, Error> {
    let mut highest = None;
    let sentinels: Vec<&Connection> =
        of_kind(means, NodeKind::Sentinel).filter_map(|node| means.connections.get(&node)).collect();
    for connection in sentinels {
        let master = sentinel::master(connection, &means.desired.master_name).await?;
        highest = highest.max(master.map(|master| master.config_epoch));
    }
    Ok(highest)
}
