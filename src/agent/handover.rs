//! Stopping without loss: a primary is moved away first, then the server writes everything and ends.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::handover::move_away;
use super::config::Environment;
use super::peers;
use super::state::State;
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::{NodeKind, Role};
use crate::redis::switchover::{Error as SwitchoverError, Switchover, switchover};
use crate::redis::{Connection, server};
use crate::telemetry::Chain;

/// How long the election of a planned move may take. Measured at 0.1 to 0.4 s; a second attempt would not fit in it.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where all pods of a layer are deleted, their kubelets tell them within a moment of each other, and a successor that is told next ends
/// as primary: the others must wait for its data, which is the newest. So the primary serves on for this long before it looks for one.
const TERMINATED_TOGETHER_WITHIN: Duration = Duration::from_millis(500);

/// How long a move that is refused is tried again. With one that is given up at its latest, and Redis' own 10 s to write
/// everything, it fits in the grace period.
const TRY_FOR: Duration = Duration::from_secs(8);
/// Between two tries. The facts that refuse a move (a Sentinel's view, a replica's link) change about once a second.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Moves the primary away if this node is it and a replica can take over. A node that stays primary stops all the same:
/// Kubernetes has decided, and everything it acknowledged is in its file. `true`: another is primary, and has all that this one had.
pub(crate) async fn hand_over(environment: &Environment, state: &State) -> bool {
    let config = state.config();
    if !config.fails_over() || config.node.kind != NodeKind::Data {
        return false;
    }
    let endpoint = state.own_endpoint(environment);
    let role = async { server::replication(&Connection::open(&endpoint).await?).await };
    if !role.await.is_ok_and(|info| info.role() == Some(Role::Primary)) {
        return false;
    }
    sleep(TERMINATED_TOGETHER_WITHIN).await;
    let began = Instant::now();
    loop {
        let moved = match &config.cluster {
            Some(cluster) => move_away(environment, state, &config, cluster).await,
            None => match request(environment, state).await {
                Some(request) => switchover(&request).await.map(drop),
                None => return false,
            },
        };
        let Err(error) = moved else { return true };
        if began.elapsed() >= TRY_FOR || !may_pass(state, &error).await {
            tracing::warn!(error = %Chain(&error), "the primary stops without a successor");
            return false;
        }
        tracing::info!(error = %Chain(&error), "the primary cannot be handed over yet");
        sleep(TRY_EVERY).await;
    }
}

/// Tries to move the primary away, once.
pub(crate) async fn try_once(environment: &Environment, state: &State) -> Result<(), SwitchoverError> {
    let config = state.config();
    if let Some(cluster) = &config.cluster {
        return move_away(environment, state, &config, cluster).await;
    }
    match request(environment, state).await {
        Some(request) => switchover(&request).await.map(drop),
        None => Ok(()),
    }
}

/// The move away from this node, which the Sentinels know by the address that it announces. `None`: it announces none yet.
async fn request(environment: &Environment, state: &State) -> Option<Switchover> {
    let config = state.config();
    let answers = peers::ask_agents(&config).await;
    let is_terminating = |answer: &LineageAnswer| answer.activity == Activity::Stopping;
    let terminating = answers.values().flatten().filter(|answer| is_terminating(answer));
    let others = config.data_nodes.iter().filter(|(ordinal, _)| **ordinal != config.node.ordinal);
    Some(Switchover {
        master_name: config.master_name.clone(),
        from: (state.announced()?, state.own_endpoint(environment)),
        others: others.map(|(_, address)| (address.clone(), state.data_endpoint(address))).collect(),
        terminating: terminating.filter_map(|answer| config.data_nodes.get(&answer.ordinal).cloned()).collect(),
        to: None,
        sentinels: config.sentinels.values().map(|address| state.sentinel_endpoint(address)).collect(),
        failover_timeout: Duration::from_millis(config.failover_timeout_milliseconds),
        election_timeout: ELECTION_TIMEOUT,
    })
}

/// Whether the reason may be gone in a moment. A failover that has just been is over soon. A replica that has just come back is
/// fit once its agent says so; but where all pods end at once none would come, so it is waited for only while one serves.
async fn may_pass(state: &State, error: &SwitchoverError) -> bool {
    match error {
        SwitchoverError::FailoverUnderWay(_) => true,
        // Writers still wait: tried again, nothing that anybody was promised is at stake.
        SwitchoverError::Undecided(_)
        | SwitchoverError::NoFitReplica(_)
        | SwitchoverError::NoFitSentinel(_)
        | SwitchoverError::Lagging(_)
        | SwitchoverError::Refused(_) => {
            let answers = peers::ask_agents(&state.config()).await;
            answers.values().flatten().any(|answer| answer.activity == Activity::Serving)
        }
        SwitchoverError::NotPrimary(_)
        | SwitchoverError::NonePromoted
        | SwitchoverError::NotDemoted { .. }
        | SwitchoverError::Command(_) => false,
    }
}
