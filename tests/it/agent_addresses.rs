//! Nodes that get other addresses while they serve: announced anew, live, and nothing is lost.

use std::collections::BTreeSet;

use redoubt::model::node_config::REDIS_PORT;
use redoubt::model::{Address, NodeId};
use redoubt::redis::{Connection, sentinel, server};

use crate::support::eventually;
use crate::support::history::{Writers, check, keys_of};
use crate::support::layer::{Layer, Options, SOON};

/// What the primary lists, and so what Sentinels find.
async fn replicas_of(layer: &Layer, primary: NodeId) -> BTreeSet<Address> {
    let info = layer.replication(primary).await;
    let replicas = info.map(|info| info.replicas()).unwrap_or_default();
    replicas
        .into_iter()
        .filter(|replica| replica.online && replica.offset.0 > 0)
        .map(|replica| replica.address)
        .collect()
}

fn addresses_but(layer: &Layer, ids: &[NodeId], without: NodeId) -> BTreeSet<Address> {
    ids.iter().filter(|id| **id != without).map(|id| layer.nodes[id].address.clone()).collect()
}

/// As the operator does once all is stable, and 30 s apart: the Sentinels still remember the old address.
async fn make_all_forget(layer: &Layer) {
    for id in layer.sentinel_ids() {
        let connection = Connection::open(&layer.operator_on(id)).await.unwrap();
        sentinel::reset(&connection, &layer.master_name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_address_is_announced_by_it_and_loses_only_its_link() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let engine = layer.engine_pids(replica);
    layer.readdress(replica).await;
    let data = layer.data_ids();
    eventually("the primary lists it by its address", SOON, async || {
        replicas_of(&layer, primary).await == addresses_but(&layer, &data, primary)
    })
    .await;
    make_all_forget(&layer).await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(primary));
    assert_eq!(layer.engine_pids(replica), engine, "it was not restarted");
}

/// A replica tells its address at the beginning of a sync, and no command ends the link before the sync is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_gets_another_address_while_it_syncs_is_announced_by_it() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let on_primary = Connection::open(&layer.operator_on(primary)).await.unwrap();
    let on_replica = Connection::open(&layer.operator_on(replica)).await.unwrap();
    // With a history of its own it needs a full sync, which begins seconds after it has told its address.
    layer.freeze_agent(replica, true);
    server::config_set(&on_primary, "repl-diskless-sync-delay", "4").await.unwrap();
    on_replica.query::<()>(redis::cmd("REPLICAOF").arg("NO").arg("ONE")).await.unwrap();
    server::replica_of(&on_replica, &layer.nodes[&primary].address.0, REDIS_PORT).await.unwrap();
    eventually("it has asked for a sync", SOON, async || {
        let info = layer.replication(primary).await;
        info.is_some_and(|info| info.replicas().iter().any(|replica| !replica.online))
    })
    .await;
    layer.readdress(replica).await;
    layer.freeze_agent(replica, false);
    let data = layer.data_ids();
    eventually("the primary lists it by its address", SOON, async || {
        replicas_of(&layer, primary).await == addresses_but(&layer, &data, primary)
    })
    .await;
    make_all_forget(&layer).await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_with_another_address_hands_over_without_loss_and_is_announced_by_it() {
    // Longer than anything is waited for here: nobody is elected because the primary was believed dead.
    let mut layer = Layer::in_sync(&Options { detection: 120_000, ..Options::default() }).await;
    let primary = layer.primary().await.unwrap();
    let engine = layer.engine_pids(primary);
    let writers = Writers::start(3, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || writers.acknowledged() > 200).await;
    layer.readdress(primary).await;
    let data = layer.data_ids();
    let mut successor = None;
    eventually("it follows another by its address", SOON, async || {
        successor = layer.primary().await.filter(|id| *id != primary);
        let Some(successor) = successor else { return false };
        replicas_of(&layer, successor).await == addresses_but(&layer, &data, successor)
    })
    .await;
    let before = writers.acknowledged();
    eventually("writes arrive again", SOON, async || writers.acknowledged() > before + 200).await;
    let history = writers.finish().await;
    let verdict = check(&history, &keys_of(&layer.endpoint(successor.unwrap())).await);
    println!("another address: {} acknowledged, gap {:?}", verdict.acknowledged, verdict.longest_gap);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
    make_all_forget(&layer).await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.engine_pids(primary), engine, "it was not restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_with_another_address_is_known_by_it_and_votes_on() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let sentinels = layer.sentinel_ids();
    let moved = sentinels[1];
    layer.readdress(moved).await;
    eventually("the others know it by its address", SOON, async || {
        for id in sentinels.iter().filter(|id| **id != moved) {
            let Ok(connection) = Connection::open(&layer.operator_on(*id)).await else { return false };
            let Ok(Some(master)) = sentinel::master(&connection, &layer.master_name).await else { return false };
            let known: BTreeSet<Address> = master.other_sentinels.into_values().collect();
            if known != addresses_but(&layer, &sentinels, *id) {
                return false;
            }
        }
        true
    })
    .await;
    layer.wait_until_in_sync().await;
    // Two of three, one of them the one that moved.
    layer.kill_node(sentinels[0]);
    let primary = layer.primary().await.unwrap();
    layer.kill_engine(primary);
    eventually("another is elected", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
}
