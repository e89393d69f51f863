//! A primary that ends, or whose volume hangs, is moved away without loss: writers pause, a replica gets all, and takes over.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::votes::{self, NoConsent};
use crate::agent::config::Environment;
use crate::agent::peers;
use crate::agent::state::State;
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::node_config::{ClusterConfig, NodeConfig};
use crate::model::{Address, Offset, Role};
use crate::redis::switchover::Error;
use crate::redis::{Connection, Result as CommandResult, cluster, server};

/// How long writers wait at most, milliseconds: the pause ends by itself where its agent is killed.
const PAUSE_MILLISECONDS: u64 = 5_000;
/// How long the replica may take to get what is under way.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long the order and what follows from it may take. Measured: 2 to 9 ms.
const DEMOTED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at a server that is about to change.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Moves the primary away from this node. On an error it serves on, unpaused but where [`Error::leaves_paused`] says otherwise.
pub(crate) async fn move_away(
    environment: &Environment,
    state: &State,
    config: &NodeConfig,
    cluster: &ClusterConfig,
) -> Result<(), Error> {
    let own = config.own_address().cloned().unwrap_or(Address(String::new()));
    let from = Connection::open(&state.own_endpoint(environment)).await?;
    if server::replication(&from).await?.role() != Some(Role::Primary) {
        return Err(Error::NotPrimary(own));
    }
    let (to, connection) = candidate(state, config, &from).await?.ok_or_else(|| Error::NoFitReplica(own.clone()))?;
    let consent = async || votes::collect(state, config, cluster, &own).await.map_err(|why| refused(&why));
    consent().await?;
    server::pause_writes(&from, PAUSE_MILLISECONDS).await?;
    let moved = async {
        // Read after the pause: what is acknowledged is in it.
        let offset = server::replication(&from).await?.offset();
        let caught_up = timeout(CATCH_UP, reaches(&connection, offset)).await;
        caught_up.map_err(|_| Error::Lagging(to.clone()))??;
        consent().await?;
        cluster::take_over(&connection).await.map_err(|_| Error::Undecided(own.clone()))?;
        let demoted = timeout(DEMOTED_WITHIN, is_demoted(&from)).await;
        demoted.map_err(|_| Error::Undecided(own.clone()))?.map_err(|_| Error::Undecided(own.clone()))
    };
    let moved: Result<(), Error> = moved.await;
    if moved.as_ref().is_err_and(Error::leaves_paused) {
        return moved;
    }
    let unpaused = server::unpause(&from).await;
    moved?;
    unpaused?;
    server::cut_clients(&from).await?;
    tracing::info!(from = %own, %to, "primary moved");
    Ok(())
}

fn refused(why: &NoConsent) -> Error {
    Error::Refused(why.to_string())
}

/// The replica that is to take over: of those that serve and do not end, the one with most.
async fn candidate(
    state: &State,
    config: &NodeConfig,
    from: &Connection,
) -> Result<Option<(Address, Connection)>, Error> {
    let answers = peers::ask_agents(config).await;
    let is_fit = |answer: &&LineageAnswer| {
        let is_whole = answer.lineage.as_ref().is_some_and(|it| it.role == Role::Replica && it.synced && it.link_up);
        answer.activity == Activity::Serving && is_whole
    };
    let online: Vec<Address> = server::replication(from).await?.replicas().into_iter().map(|it| it.address).collect();
    let mut best: Option<(Offset, Address, Connection)> = None;
    for answer in answers.values().flatten().filter(is_fit) {
        let Some(address) = config.data_nodes.get(&answer.ordinal).filter(|address| online.contains(address)) else {
            continue;
        };
        let Ok(connection) = Connection::open(&state.data_endpoint(address)).await else { continue };
        let Ok(info) = server::replication(&connection).await else { continue };
        let has_link = info.primary_link().is_some_and(|link| link.up && !link.syncing);
        if has_link && best.as_ref().is_none_or(|(most, ..)| info.offset() > *most) {
            best = Some((info.offset(), address.clone(), connection));
        }
    }
    Ok(best.map(|(_, address, connection)| (address, connection)))
}

/// Returns once a replica has as much.
async fn reaches(connection: &Connection, offset: Offset) -> CommandResult<()> {
    while server::replication(connection).await?.offset() < offset {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn is_demoted(connection: &Connection) -> CommandResult<()> {
    while server::replication(connection).await?.role() == Some(Role::Primary) {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}
