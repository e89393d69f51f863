//! A node whose Service came back with another cluster IP: announced again, with its server running.
//!
//! It happens where a Service was deleted and another process got its address before it was made again; the operator tells the
//! agents the new one. Connections that were there go on through the old address for as long as the network remembers them, new
//! ones reach the server that has it now. A replica tells its address only when it links to its primary (`REPLCONF ip-address`,
//! [Redis](https://redis.io/docs/latest/operate/oss_and_stack/management/replication/#configuring-replication-in-docker-and-nat)),
//! so it links again. A primary is known by its old address to all Sentinels and clients: it hands over first, without loss.
//! What the Sentinels remember of the old address is the operator's to make them forget.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Environment;
use super::handover;
use super::state::State;
use crate::model::{Address, Role};
use crate::redis::info::Info;
use crate::redis::{Connection, server};
use crate::telemetry::Chain;

/// Between two tries to hand over: one that fails may have kept writers waiting for some seconds.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);

/// What is followed of the announced address.
#[derive(Default)]
pub(super) struct Announcement {
    handed_over: Option<Instant>,
}

impl Announcement {
    /// Announces the declared address where the server still has another one.
    pub(super) async fn keep(
        &mut self,
        environment: &Environment,
        state: &State,
        connection: &Connection,
        info: &Info,
    ) {
        let config = state.config();
        let Some(own) = config.own_address().filter(|own| Some(*own) != state.announced().as_ref()) else { return };
        if info.role() == Some(Role::Primary) && config.has_sentinels() {
            if self.handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_EVERY) {
                tracing::warn!(address = %own, "the primary has another address: it hands over");
                if let Err(error) = handover::try_once(environment, state).await {
                    tracing::warn!(error = %Chain(&error), "not handed over, to be tried again");
                }
                self.handed_over = Some(Instant::now());
            }
            return;
        }
        match announce(connection, own, info, config.cluster.is_some()).await {
            Ok(true) => {
                tracing::warn!(address = %own, "the node is announced by another address");
                state.set_announced(Some(own.clone()));
            }
            Ok(false) => tracing::info!(address = %own, "announced once the replica has a link to end"),
            Err(error) => tracing::warn!(address = %own, %error, "not announced yet"),
        }
    }
}

/// Clients of the old address come again by the new one; where they cannot, they see at once that no server is there. False: not yet. A
/// replica that is just linking may have told its old address already, and no command ends a link before its sync is done.
async fn announce(connection: &Connection, own: &Address, info: &Info, in_cluster: bool) -> crate::redis::Result<bool> {
    if in_cluster {
        server::config_set(connection, "cluster-announce-ip", &own.0).await?;
    }
    server::config_set(connection, "replica-announce-ip", &own.0).await?;
    let ended = server::cut_primary(connection).await?;
    if info.role() == Some(Role::Replica) && ended == 0 {
        return Ok(false);
    }
    server::cut_subscribers(connection).await?;
    server::cut_clients(connection).await?;
    Ok(true)
}
