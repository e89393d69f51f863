//! Which replica has most of a dead primary's stream, and that the Sentinels know it.
//!
//! Of several replicas a Sentinel elects the one with the largest offset in its last `INFO`, which is up to a second old: it
//! may take one that lacks what another has, and what only that one had is lost. The primary is dead, so what a replica has
//! does not change any more; where they differ, the Sentinels are made to look before one of them is told to fail over.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::state::State;
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Offset};
use crate::redis::sentinel::ReplicaView;
use crate::redis::{Connection, info_window, sentinel, server};

/// Time for a server's answer: it is the next thing that everybody waits for, so a silent one is passed over soon.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// How long a replica may take to read what its dead primary still sent: it is in its own socket's buffer.
const READ_WITHIN: Duration = Duration::from_millis(300);
/// How long a Sentinel may take to see it: it looks in each tick, every 50 to 100 ms.
const SEEN_WITHIN: Duration = Duration::from_millis(400);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until every Sentinel would elect a replica that has most of what the dead primary sent. After a short while it is
/// left at that: writers wait.
pub async fn is_known(state: &State, config: &NodeConfig, replicas: &[Address]) {
    let offsets = offsets(state, replicas).await;
    if offsets.values().min() == offsets.values().max() {
        return;
    }
    tracing::info!(?offsets, "the replicas differ; the Sentinels are made to look");
    join_all(config.sentinels.values().map(async |address| {
        match timeout(SEEN_WITHIN, is_seen(state, config, address, &offsets)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(sentinel = %address, %error, "the Sentinel cannot be made to look"),
            Err(_) => tracing::warn!(sentinel = %address, "the Sentinel might elect a replica that lacks something"),
        }
        // Its agent would set the pace too, seconds later; until then it asks more than it has to.
        if let Ok(connection) = open(state, address).await {
            let _ = sentinel::set_info_period(&connection, info_window::PERIOD).await;
        }
    }))
    .await;
}

/// What each replica has, once it has read all that its dead primary sent; who does not answer is left out.
async fn offsets(state: &State, replicas: &[Address]) -> BTreeMap<Address, Offset> {
    let asked = replicas.iter().map(async |address| {
        let endpoint = state.data_endpoint(address);
        let connection = Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await.ok()?;
        let read = timeout(READ_WITHIN, has_read_all(&connection)).await;
        match read {
            Ok(offset) => Some((address.clone(), offset.ok()?)),
            Err(_) => Some((address.clone(), server::replication(&connection).await.ok()?.offset())),
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// A link that is down has been read to its end.
async fn has_read_all(connection: &Connection) -> crate::redis::Result<Offset> {
    loop {
        let info = server::replication(connection).await?;
        if !info.primary_link().is_some_and(|link| link.up) {
            return Ok(info.offset());
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn open(state: &State, address: &Address) -> crate::redis::Result<Connection> {
    Connection::open_with(&state.sentinel_endpoint(address), ANSWER_WITHIN, ANSWER_WITHIN).await
}

async fn is_seen(
    state: &State,
    config: &NodeConfig,
    address: &Address,
    offsets: &BTreeMap<Address, Offset>,
) -> crate::redis::Result<()> {
    let connection = open(state, address).await?;
    sentinel::set_info_period(&connection, info_window::EACH_TICK).await?;
    while !elects_the_freshest(&sentinel::replica_views(&connection, &config.master_name).await?, offsets) {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether a Sentinel with these views elects a replica that has as much as any: the largest offset that it has seen is that
/// of a replica which really has most, and of no other.
fn elects_the_freshest(views: &[ReplicaView], offsets: &BTreeMap<Address, Offset>) -> bool {
    let most = offsets.values().max();
    let electable = || views.iter().filter(|view| view.electable);
    let seen = electable().map(|view| view.offset).max();
    electable().filter(|view| Some(view.offset) == seen).all(|view| offsets.get(&view.address) == most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(number: u64, electable: bool, offset: u64) -> ReplicaView {
        let address = Address(format!("10.0.0.{number}"));
        ReplicaView { address, electable, info_age: Duration::ZERO, offset: Offset(offset) }
    }

    #[test]
    fn a_sentinel_that_saw_too_little_of_the_freshest_is_made_to_look_again() {
        let offsets = BTreeMap::from([1, 2].map(|number| (view(number, true, 0).address, Offset(100 * number))));
        let elects = |views: &[ReplicaView]| elects_the_freshest(views, &offsets);
        assert!(elects(&[view(1, true, 100), view(2, true, 200)]));
        assert!(!elects(&[view(1, true, 100), view(2, true, 90)]), "an old look at the freshest");
        assert!(!elects(&[view(1, true, 90), view(2, true, 90)]), "either might be elected");
        assert!(elects(&[view(1, true, 90), view(2, true, 95)]), "old looks, but the right one leads");
        assert!(elects(&[view(1, false, 100), view(2, true, 90)]));
        assert!(
            !elects(&[view(1, true, 100), view(3, true, 150)]),
            "one that did not answer us is not trusted to be it"
        );
    }
}
