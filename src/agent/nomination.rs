//! A replica that the Sentinels name as primary becomes primary.

use super::boot::RunningDecision;
use super::cluster::takeover::take_over_here;
use super::state::State;
use crate::redis::{Connection, server};

/// Sentinels elect among the replicas of the node that they name, never that node: one that they name and that runs as a replica is
/// promoted by none. So it is when all nodes restart before most Sentinels heard of the last failover: they name its loser, whom
/// its winner follows to be elected; then they hear of it, name the winner, and each of the two follows the other, without end. Where
/// they name no primary the rule decides as at a start, unless a node has begun to start as primary.
pub(super) async fn accept_nomination(state: &State, connection: &Connection, again: &RunningDecision) {
    if !again.promotes_itself {
        return;
    }
    let config = state.config();
    if let Some(cluster) = &config.cluster {
        return take_over_here(state, &config, cluster, connection).await;
    }
    tracing::info!("no node has newer data, and no other is or may become primary: this replica does");
    if let Err(error) = server::replica_of_no_one(connection).await {
        tracing::warn!(%error, "this node stays a replica, though the Sentinels name it");
    }
}

/// In mode `Cluster` a server starts as what it was before. One whose data a person chose becomes primary all the same, once the others have
/// stepped down.
pub(super) async fn accept_choice(state: &State, connection: &Connection) {
    let config = state.config();
    if let Some(cluster) = &config.cluster {
        take_over_here(state, &config, cluster, connection).await;
    }
}
