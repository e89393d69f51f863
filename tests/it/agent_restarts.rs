//! All nodes of a layer are stopped while its last failover is not over yet: whatever was half done then, they come back by
//! themselves, with what was acknowledged.

use std::time::{Duration, Instant};

use redoubt::model::{NodeId, Role};
use redoubt::redis::{Connection, sentinel};
use tokio::time::sleep;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, SOON};

/// Kills the primary's engine, lets `pause` go by, and restarts all.
async fn killed_and_restarted(layer: &mut Layer, pause: Duration) {
    write_some(layer, 100).await;
    let primary = layer.primary().await.unwrap();
    layer.kill_engine(primary);
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    sleep(pause).await;
    let held = keys_of(&layer.endpoint(layer.primary().await.unwrap_or(NodeId::data(0)))).await;
    let began = Instant::now();
    layer.restart_all().await;
    layer.wait_until_whole().await;
    println!("stopped {pause:?} after a failover: whole after {:.2?}", began.elapsed());
    let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    assert_eq!(held.difference(&now).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_stopped_just_after_a_failover_come_back() {
    let rounds = std::env::var("REDOUBT_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let lanes = (0..2).map(async |lane: u64| {
        let mut layer = Layer::whole(&Options { detection: 5_000, ..Options::default() }).await;
        layer.mark_initialised();
        for round in 0..rounds {
            killed_and_restarted(&mut layer, Duration::from_millis((lane * 131 + round * 197) % 2_500)).await;
        }
    });
    futures::future::join_all(lanes).await;
}

/// Fails over by one Sentinel while the others are gone, takes a write on the winner, and says who that is.
async fn won_alone(layer: &mut Layer, primary: NodeId, demoted: bool) -> NodeId {
    layer.kill_node(NodeId::sentinel(1));
    layer.kill_node(NodeId::sentinel(2));
    if !demoted {
        layer.kill_node(primary);
    }
    let first = Connection::open(&layer.operator_on(NodeId::sentinel(0))).await.unwrap();
    sentinel::failover(&first, &layer.master_name).await.unwrap();
    let mut winner = None;
    eventually("another is primary, and its record says so", SOON, async || {
        for id in layer.data_ids().into_iter().filter(|id| *id != primary) {
            let record = layer.lineage(id).await.and_then(|answer| answer.lineage);
            if record.is_some_and(|record| record.role == Role::Primary) {
                winner = Some(id);
            }
        }
        winner.is_some()
    })
    .await;
    let endpoint = layer.endpoint(winner.unwrap());
    eventually("it takes a write", SOON, async || {
        let Ok(connection) = Connection::open(&endpoint).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg("after").arg(1)).await.is_ok()
    })
    .await;
    winner.unwrap()
}

/// Most Sentinels were stopped before they heard of the last failover: they name a node whose data is older.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_of_which_most_sentinels_have_not_heard_is_not_forgotten() {
    // With two nodes nobody else can be elected, and long before anybody is down the Sentinels hear of the failover: by then its
    // winner follows its loser.
    for (data_nodes, detection, demoted) in [(2, 10_000, true), (3, 2_000, true), (3, 2_000, false)] {
        let mut layer = Layer::whole(&Options { data_nodes, detection, ..Options::default() }).await;
        layer.mark_initialised();
        write_some(&layer, 100).await;
        let primary = layer.primary().await.unwrap();
        let winner = won_alone(&mut layer, primary, demoted).await;
        let held = keys_of(&layer.endpoint(winner)).await;
        let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
        for id in &ids {
            if ![NodeId::sentinel(1), NodeId::sentinel(2)].contains(id) && (demoted || *id != primary) {
                layer.kill_node(*id);
            }
        }
        let began = Instant::now();
        for id in ids {
            layer.start_node(id);
        }
        layer.wait_until_whole().await;
        println!("{data_nodes} nodes, predecessor demoted: {demoted}; whole after {:.2?}", began.elapsed());
        let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        assert_eq!(held.difference(&now).count(), 0);
    }
}
