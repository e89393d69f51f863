//! The planned move of the primary: makes sure that it is still the one that the plan saw, and hands over to
//! `redis::switchover`. It takes some seconds, so it is prepared here and carried out next to the passes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Error, StepOutcome, StepResources, redis};
use crate::model::{NodeId, NodeKind};
use crate::plan::Step;
use crate::redis::switchover::{Switchover, switchover};
use crate::redis::{Connection, sentinel};

/// How long the election may take before the move is given up; measured at 0.1 to 0.4 s.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A move of the primary with all that it needs: it outlasts the pass that begins it.
#[derive(Debug)]
pub struct Handover {
    primary: Connection,
    run_id: String,
    request: Switchover,
}

impl Handover {
    /// What the step asks for; an error: what is missing for it.
    pub(super) fn prepare(resources: StepResources<'_>, step: &Step) -> Result<Self, StepOutcome> {
        let dropped = |why: &str| StepOutcome::Dropped(why.to_owned());
        let Step::Switchover { from, from_run_id, candidates, to, .. } = step else {
            return Err(dropped("not a switchover"));
        };
        let primary = resources.connections.get(from).ok_or_else(|| dropped("no connection to the primary"))?;
        let place =
            |node: &NodeId| Some((resources.addresses.get(node)?.clone(), (*resources.endpoints.get(node)?).clone()));
        let sentinels = of_kind(resources, NodeKind::Sentinel);
        let request = Switchover {
            master_name: resources.desired.master_name.clone(),
            from: place(from).ok_or_else(|| dropped("the primary has no address"))?,
            others: candidates.iter().filter_map(place).collect(),
            to: match to {
                Some(to) => Some(place(to).ok_or_else(|| dropped("the successor has no address"))?.0),
                None => None,
            },
            // The plan chose among those whose pods stay.
            terminating: BTreeSet::new(),
            sentinels: sentinels.filter_map(|node| Some((*resources.endpoints.get(&node)?).clone())).collect(),
            failover_timeout: resources.desired.sentinel_settings.failover_timeout,
            election_timeout: ELECTION_TIMEOUT,
        };
        Ok(Self { primary: primary.clone(), run_id: from_run_id.clone(), request })
    }

    /// Moves the primary, which takes seconds. A failure is an outcome, not an error.
    pub async fn carry_out(self) -> StepOutcome {
        self.attempt().await.unwrap_or_else(|error| StepOutcome::of(&error))
    }

    async fn attempt(&self) -> Result<StepOutcome, Error> {
        if !redis::is_process(&self.primary, &self.run_id).await? {
            return Ok(StepOutcome::Dropped("the primary was restarted".to_owned()));
        }
        switchover(&self.request).await?;
        Ok(StepOutcome::Done)
    }
}

fn of_kind(resources: StepResources<'_>, kind: NodeKind) -> impl Iterator<Item = NodeId> {
    resources.desired.nodes.keys().copied().filter(move |node| node.kind == kind)
}

/// The highest `config-epoch` that the Sentinels know now.
pub(super) async fn epoch(resources: StepResources<'_>) -> Result<Option<u64>, Error> {
    let mut highest = None;
    let sentinels: Vec<&Connection> =
        of_kind(resources, NodeKind::Sentinel).filter_map(|node| resources.connections.get(&node)).collect();
    for connection in sentinels {
        let master = sentinel::master(connection, &resources.desired.master_name).await?;
        highest = highest.max(master.map(|master| master.config_epoch));
    }
    Ok(highest)
}
