//! A failover that the agent asks for because its engine is dead: ordered at the best Sentinel, and seen through.
//!
//! The Sentinel promotes within 0.3 s, but learns of its own success, and re-points the other replicas, only by its next
//! `INFO`, up to a second later. Until then the new primary has no replica and may refuse writers
//! (`min-replicas-to-write`). So the agent watches the promotion itself and does what the Sentinel will do anyway.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::state::State;
use crate::model::Address;
use crate::model::node_config::{NodeConfig, REDIS_PORT};
use crate::redis::server::RoleReply;
use crate::redis::{Connection, Endpoint, info_window, sentinel, server};

/// Time for a server's answer: it is the next thing that everybody waits for, so a silent one is passed over soon.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Between two looks at the replicas.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A promotion comes within 0.3 s of the order or, where the Sentinel gave up, not at all. After this the boot rule is
/// asked again.
const PROMOTED_WITHIN: Duration = Duration::from_secs(2);

/// Orders a failover and waits for it. `replicas`: those that followed our dead engine. The new primary, which the other
/// replicas follow already; `None`: nobody was promoted, or not in time.
pub async fn fail_over(state: &State, config: &NodeConfig, replicas: &[Address]) -> Option<Address> {
    if !order(state, config).await {
        return None;
    }
    let promoted = timeout(PROMOTED_WITHIN, first_primary(state, replicas)).await.ok()?;
    tracing::info!(primary = %promoted, "promoted");
    let others = replicas.iter().filter(|address| **address != promoted);
    join_all(others.map(async |address| {
        if let Err(error) = follow(&state.data_endpoint(address), &promoted).await {
            tracing::warn!(replica = %address, %error, "left to the Sentinels");
        }
    }))
    .await;
    Some(promoted)
}

async fn open(endpoint: &Endpoint) -> crate::redis::Result<Connection> {
    Connection::open_with(endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await
}

async fn follow(endpoint: &Endpoint, primary: &Address) -> crate::redis::Result<()> {
    server::replica_of(&open(endpoint).await?, &primary.0, REDIS_PORT).await
}

/// Asks one Sentinel after the other until one begins: first the one that will hear of its success soonest, since all
/// Sentinel-aware clients wait for that. True: a failover is under way.
async fn order(state: &State, config: &NodeConfig) -> bool {
    let asked = config.sentinels.values().map(async |address| {
        let connection = open(&state.sentinel_endpoint(address)).await.ok()?;
        let views = sentinel::replica_views(&connection, &config.master_name).await.ok()?;
        Some((info_window::expected_delay(&views), address, connection))
    });
    let mut sentinels: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    sentinels.sort_by_key(|(delay, address, _)| (*delay, (*address).clone()));
    for (delay, address, connection) in sentinels {
        match sentinel::failover(&connection, &config.master_name).await {
            Ok(()) => {
                tracing::info!(sentinel = %address, ?delay, "asked for a failover");
                return true;
            }
            Err(error) => {
                let reason = error.server_text().unwrap_or_else(|| error.to_string());
                tracing::info!(sentinel = %address, reason, "would not fail over");
                // Somebody else has begun, unless what it is busy with is the last failover, the one that made us primary.
                if reason.starts_with("INPROG") && fails_us_over(config, &connection).await {
                    return true;
                }
            }
        }
    }
    false
}

/// Whether the failover that a Sentinel is busy with is one away from this node: until its end it lists whom it fails over.
async fn fails_us_over(config: &NodeConfig, connection: &Connection) -> bool {
    let master = sentinel::master(connection, &config.master_name).await;
    master.is_ok_and(|master| master.is_some_and(|master| Some(&master.address) == config.own_address()))
}

/// The Sentinels cut all connections of the replica that they promote, so each look is ready to open a new one.
async fn first_primary(state: &State, replicas: &[Address]) -> Address {
    let mut connections: Vec<Option<Connection>> = vec![None; replicas.len()];
    loop {
        for (address, connection) in replicas.iter().zip(&mut connections) {
            if connection.is_none() {
                *connection = open(&state.data_endpoint(address)).await.ok();
            }
            let Some(asked) = connection else { continue };
            match server::role(asked).await {
                Ok(RoleReply::Primary { .. }) => return address.clone(),
                Ok(_) => {}
                Err(_) => *connection = None,
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
