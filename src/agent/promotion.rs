//! Announces a promotion to all Sentinels and replicas at once, next to the Sentinel that makes it.
//!
//! The Sentinel that fails over promotes within 0.3 s, but learns of its own success, tells the other Sentinels and
//! re-points the other replicas only by its next `INFO`, up to a second later. Until then all Sentinels send clients to the
//! old primary, and the new one has no replica and may refuse writers (`min-replicas-to-write`). So the agent of that
//! Sentinel hears whom it is about to promote, asks that server itself, and does what the Sentinel will do anyway.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::config::Environment;
use super::state::State;
use crate::model::Address;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::redis::first_primary::first_primary;
use crate::redis::hello::{self, Hello};
use crate::redis::server::RoleReply;
use crate::redis::{Connection, Endpoint, sentinel, server};

/// Time for a server's answer. Clients wait for what follows from it, so a silent server is passed over soon.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// A promotion comes within 0.3 s of the order or, where the replica is in trouble, when the Sentinel finds out by itself.
const PROMOTED_WITHIN: Duration = Duration::from_secs(5);
/// Before a lost subscription to the own Sentinel is opened again.
const RENEW_AFTER: Duration = Duration::from_millis(500);

/// Listens to the own Sentinel for as long as it is polled.
pub(crate) async fn announce_promotions(environment: &Environment, state: &State) -> std::convert::Infallible {
    loop {
        match sentinel::promotions(&state.own_endpoint(environment)).await {
            Ok(promotions) => {
                let mut promotions = std::pin::pin!(promotions);
                while let Some(promotion) = promotions.next().await {
                    if promotion.master_name != state.config().master_name {
                        continue;
                    }
                    if let Err(error) = announce(environment, state, &promotion.address).await {
                        tracing::info!(replica = %promotion.address, %error, "the promotion is not announced; the Sentinels see it within a second");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the own Sentinel's events are not heard yet"),
        }
        sleep(RENEW_AFTER).await;
    }
}

/// Connects to a server from which the next step of a failover follows.
pub(super) async fn open(endpoint: &Endpoint) -> crate::redis::Result<Connection> {
    Connection::open_with(endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await
}

/// Waits until `replica`, which the own Sentinel promotes, says that it is primary; then tells every Sentinel and points the
/// other replicas to it.
async fn announce(environment: &Environment, state: &State, replica: &Address) -> crate::redis::Result<()> {
    let config = state.config();
    let own = open(&state.own_endpoint(environment)).await?;
    let Some(master) = sentinel::master(&own, &config.master_name).await? else { return Ok(()) };
    let epoch = hello::failover_epoch(&own, &master.address, REDIS_PORT).await?;
    if !is_promoting(&master, replica) || epoch <= master.config_epoch {
        return Ok(());
    }
    if timeout(PROMOTED_WITHIN, first_primary(vec![(state.data_endpoint(replica), None)], open)).await.is_err() {
        return Ok(());
    }
    tracing::info!(primary = %replica, epoch, "promoted");
    tokio::join!(
        publish_to_own(&own, &config, &master, replica, epoch),
        publish_to_others(state, &config, replica, epoch),
        point(state, master.replicas.keys(), replica),
    );
    Ok(())
}

/// Whether this failover is the one that promotes `replica`: of two that were promoted one after the other, telling the
/// epoch of the second with the address of the first would leave two primaries that are believed equally, without end.
fn is_promoting(master: &SentinelMaster, replica: &Address) -> bool {
    master.is_failing_over() && master.replicas.get(replica).is_some_and(|flags| flags.contains("promoted"))
}

/// Tells the own Sentinel, in the name of one that it knows.
async fn publish_to_own(own: &Connection, config: &NodeConfig, master: &SentinelMaster, primary: &Address, epoch: u64) {
    if let Some((run_id, sender)) = master.other_sentinels.iter().next() {
        publish(own, config, (sender, run_id), primary, epoch).await;
    }
}

/// Tells the other Sentinels, in the name of the own one, as they know it.
async fn publish_to_others(state: &State, config: &NodeConfig, primary: &Address, epoch: u64) {
    let own = config.own_address();
    let others = config.sentinels.values().filter(|address| Some(*address) != own);
    join_all(others.map(async |address| {
        let Ok(connection) = open(&state.sentinel_endpoint(address)).await else { return };
        let Ok(Some(theirs)) = sentinel::master(&connection, &config.master_name).await else { return };
        if let Some((run_id, sender)) = theirs.other_sentinels.iter().find(|(_, address)| Some(*address) == own) {
            publish(&connection, config, (sender, run_id), primary, epoch).await;
        }
    }))
    .await;
}

async fn publish(
    connection: &Connection,
    config: &NodeConfig,
    (sender, run_id): (&Address, &str),
    primary: &Address,
    epoch: u64,
) {
    let (master_name, sender_port) = (config.master_name.as_str(), SENTINEL_PORT);
    let message = Hello { sender, sender_port, run_id, master_name, primary, port: REDIS_PORT, epoch };
    if let Err(error) = hello::publish(connection, &message).await {
        tracing::info!(sentinel = connection.name(), %error, "the Sentinel did not take the announcement; it sees the promotion within a second");
    }
}

/// Points the other replicas to the new primary. The Sentinels do so too, some time later.
pub(super) async fn point(state: &State, replicas: impl IntoIterator<Item = &Address>, primary: &Address) {
    let others = replicas.into_iter().filter(|address| *address != primary);
    join_all(others.map(async |address| {
        if let Err(error) = follow(&state.data_endpoint(address), primary).await {
            tracing::info!(replica = %address, %error, "REPLICAOF failed; a Sentinel points it to the primary");
        }
    }))
    .await;
}

/// Points a replica to the new primary. A server that says that it is primary is left to the Sentinels.
async fn follow(endpoint: &Endpoint, primary: &Address) -> crate::redis::Result<()> {
    let connection = open(endpoint).await?;
    match server::role(&connection).await? {
        RoleReply::Replica { primary: followed, .. } if followed != *primary => {
            server::replica_of(&connection, &primary.0, REDIS_PORT).await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn only_the_replica_that_this_failover_promotes_is_announced() {
        let flags = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<BTreeSet<_>>();
        let (first, second) = (Address("10.0.0.2".to_owned()), Address("10.0.0.3".to_owned()));
        let mut master = SentinelMaster {
            address: Address("10.0.0.1".to_owned()),
            config_epoch: 7,
            flags: flags(&["master", "failover_in_progress"]),
            quorum: 2,
            detection: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(15),
            parallel_syncs: 3,
            other_sentinels: BTreeMap::new(),
            steady_milliseconds: None,
            replicas: BTreeMap::from([
                (first.clone(), flags(&["slave"])),
                (second.clone(), flags(&["slave", "promoted"])),
            ]),
        };
        assert!(is_promoting(&master, &second));
        assert!(!is_promoting(&master, &first), "promoted by an earlier failover that was given up");
        master.flags.remove("failover_in_progress");
        assert!(!is_promoting(&master, &second));
    }
}
