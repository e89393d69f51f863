//! All nodes of a layer are stopped while its last failover is not over yet: whatever was half done then, they come back by
//! themselves, with what was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use redoubt::model::{NodeId, Role};
use redoubt::redis::{Connection, sentinel, server};
use tokio::time::sleep;

use crate::agent_process::{lost_nothing_confirmed, write_some};
use crate::support::eventually;
use crate::support::history::{Writers, check, keys_of};
use crate::support::layer::{Layer, Options, SOON, WRITTEN_AT_ONCE};

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
    layer.wait_until_in_sync().await;
    println!("stopped {pause:?} after a failover: whole after {:.2?}", began.elapsed());
    let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    assert_eq!(held.difference(&now).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_stopped_just_after_a_failover_come_back() {
    let rounds = std::env::var("REDOUBT_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let lanes = (0..2).map(async |lane: u64| {
        let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
        layer.mark_initialised();
        for round in 0..rounds {
            killed_and_restarted(&mut layer, Duration::from_millis((lane * 131 + round * 197) % 2_500)).await;
        }
    });
    futures::future::join_all(lanes).await;
}

/// The primary, and the id of its process.
async fn served_by(layer: &Layer) -> Option<(NodeId, String)> {
    let primary = layer.primary().await?;
    let connection = Connection::open(&layer.operator_on(primary)).await.ok()?;
    Some((primary, server::info(&connection).await.ok()?.run_id()?.to_owned()))
}

/// The second dies before the first has its data: neither may begin from less than what it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_one_replica_outlives_two_deaths_of_its_primary_one_right_after_the_other() {
    const WRITERS: usize = 2;
    let options = Options { data_nodes: 2, min_replicas: 0, settings: WRITTEN_AT_ONCE, ..Options::default() };
    let layer = Layer::in_sync(&options).await;
    layer.mark_initialised();
    for round in 0..3 {
        let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
        eventually("writes arrive", SOON, async || writers.acknowledged() > 200).await;
        for _ in 0..2 {
            let (primary, old) = served_by(&layer).await.unwrap();
            layer.kill_engine(primary);
            // Of two nodes the other has less after the second death, and the same one serves again from its file.
            let is_another = async || served_by(&layer).await.is_some_and(|(_, now)| now != old);
            eventually("another process is primary", SOON, is_another).await;
        }
        layer.wait_until_in_sync().await;
        let before = writers.acknowledged();
        eventually("writes arrive again", SOON, async || writers.acknowledged() > before + 200).await;
        let history = writers.finish().await;
        let verdict = check(&history, &keys_of(&layer.endpoint(layer.primary().await.unwrap())).await);
        println!(
            "round {round}: {} acknowledged, {} lost, longest gap {:?}",
            verdict.acknowledged,
            verdict.lost.len(),
            verdict.longest_gap
        );
        assert!(!verdict.two_primaries);
        lost_nothing_confirmed(&verdict);
    }
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
        let mut layer = Layer::in_sync(&Options { data_nodes, detection, ..Options::default() }).await;
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
        layer.wait_until_in_sync().await;
        println!("{data_nodes} nodes, predecessor demoted: {demoted}; whole after {:.2?}", began.elapsed());
        let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        assert_eq!(held.difference(&now).count(), 0);
    }
}

/// Deletes the layer, of which each node hears at another time, and makes it again of the same volumes: the new Sentinels remember
/// nobody, so the records alone say who has the newest data.
async fn deleted_and_created_again(layer: &mut Layer, after: impl Fn(NodeId) -> Duration, life: u32) {
    write_some(layer, 50).await;
    layer.stop_all(after).await;
    for id in layer.sentinel_ids() {
        layer.wipe(id);
    }
    layer.edit_documents(|config| {
        config.layer.uid = format!("life-{life}");
        config.initialised = false;
    });
    let began = Instant::now();
    for id in layer.nodes.keys().copied().collect::<Vec<_>>() {
        layer.start_node(id);
    }
    layer.wait_until_in_sync().await;
    println!("whole after {:.2?}", began.elapsed());
    assert!(layer.keys(layer.primary().await.unwrap()).await.is_some_and(|keys| keys > 0), "it began empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_deleted_and_created_again_has_its_data_and_asks_no_person() {
    let rounds = std::env::var("REDOUBT_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    for round in 0..rounds {
        // The first one was seen to need a person: redis-0 hands over to redis-1, which stops a moment later.
        let mut seed = u64::from(round + 73) * 7_919 + 17;
        let delays: BTreeMap<NodeId, Duration> = layer
            .nodes
            .keys()
            .map(|id| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*id, Duration::from_millis((seed >> 33) % 700))
            })
            .collect();
        deleted_and_created_again(&mut layer, |id| delays[&id], round).await;
    }
}

/// The operator's word that the layer was Ready comes a moment after it is; what was written until then is no less missed.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_all_volumes_lost_before_the_layer_was_recorded_as_ready_is_not_given_up() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    write_some(&layer, 20).await;
    let note = |layer: &Layer, id| layer.data(id).with_file_name("run").join("had-keys");
    let ids = layer.data_ids();
    eventually("all note that they have keys", SOON, async || ids.iter().all(|id| note(&layer, *id).exists())).await;
    // The one whom the Sentinels name is a new pod: of what was before it learns from the others alone.
    let named = layer.primary().await.unwrap();
    fs::remove_file(note(&layer, named)).unwrap();
    for id in &ids {
        layer.kill_node(*id);
        layer.wipe(*id);
    }
    let log = layer.data(named).with_file_name("log");
    fs::remove_file(&log).unwrap();
    for id in &ids {
        layer.start_node(*id);
    }
    eventually("it waits for a person", SOON, async || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("DataMissing"))
    })
    .await;
    assert!(layer.engine_pids(named).is_empty(), "it began empty");
}

/// All nodes are told to end within a moment of each other, and a replica does not come back: a successor that ends as primary would have
/// the newest data, and the others would wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_that_are_told_to_end_together_come_back_without_either_replica() {
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    layer.mark_initialised();
    for round in 0..4_u64 {
        write_some(&layer, 100).await;
        let primary = layer.primary().await.unwrap();
        let replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
        let missing = replicas[usize::try_from(round % 2).unwrap()];
        let held = layer.keys(primary).await;
        layer.stop_all(|id| Duration::from_millis(if id == primary { 0 } else { 150 + 60 * round })).await;
        for id in layer.nodes.keys().copied().filter(|id| *id != missing).collect::<Vec<_>>() {
            layer.start_node(id);
        }
        let took = eventually("it takes writes", SOON, async || {
            let Some(now) = layer.primary().await else { return false };
            let Ok(application) = Connection::open(&layer.endpoint(now)).await else { return false };
            application.query::<()>(redis::cmd("SET").arg("key:0").arg(1)).await.is_ok()
        })
        .await;
        println!("told together, {missing} of {primary}'s replicas is missing: writes after {took:.2?}");
        assert!(layer.keys(layer.primary().await.unwrap()).await >= held);
        layer.start_node(missing);
        layer.wait_until_in_sync().await;
    }
}
