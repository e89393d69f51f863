//! Agents with real engines on loopback: they form a layer, and it comes back by itself from what is done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redoubt::model::{Address, NodeId};
use redoubt::redis::{Connection, sentinel, server};

use crate::support::history::{Verdict, Writers, check, keys_of};
use crate::support::layer::{Layer, Options, SOON, WRITTEN_AT_ONCE};
use crate::support::{eventually, spread};

const WRITERS: usize = 3;

pub async fn write_some(layer: &Layer, enough: usize) -> BTreeSet<String> {
    let primary = layer.primary().await.unwrap();
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("enough is written", SOON, async || layer.keys(primary).await.unwrap_or(0) >= enough as u64).await;
    let history = writers.finish().await;
    history.into_iter().map(|write| write.key).collect()
}

/// Keeps writing while `disturb` happens and until the layer is in sync; judges by what the primary holds then.
async fn under_load(layer: &mut Layer, disturb: impl AsyncFnOnce(&mut Layer, NodeId)) -> Verdict {
    let primary = layer.primary().await.unwrap();
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || writers.acknowledged() > 200).await;
    disturb(layer, primary).await;
    layer.wait_until_in_sync().await;
    let before = writers.acknowledged();
    eventually("writes arrive again", SOON, async || writers.acknowledged() > before + 200).await;
    let history = writers.finish().await;
    check(&history, &keys_of(&layer.endpoint(layer.primary().await.unwrap())).await)
}

/// Asynchronous replication: what only the dead engine had is gone.
pub fn lost_nothing_confirmed(verdict: &Verdict) {
    assert!(verdict.confirmed > 0, "a replica confirms some: {verdict:?}");
    assert_eq!(verdict.lost_although_confirmed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_replaced_and_nothing_that_was_acknowledged_is_rolled_back() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let mut killed = None;
    let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
        layer.kill_engine(primary);
        killed = Some(primary);
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    })
    .await;
    println!(
        "engine killed: {} acknowledged, gap {:?}, lost {}",
        verdict.acknowledged,
        verdict.longest_gap,
        verdict.lost.len()
    );
    assert!(!verdict.two_primaries);
    lost_nothing_confirmed(&verdict);
}

/// Asks all nodes but one over and over until one takes a write: a plain client that knows no Sentinel.
async fn takes_a_write(layer: &Layer, dead: NodeId) -> Duration {
    let began = Instant::now();
    let limit = Duration::from_millis(500);
    let ids: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != dead).collect();
    let mut connections = BTreeMap::new();
    eventually("somebody takes a write", SOON, async || {
        for id in &ids {
            if !connections.contains_key(id) {
                let Ok(opened) = Connection::open_with(&layer.endpoint(*id), limit, limit).await else { continue };
                connections.insert(*id, opened);
            }
            match connections[id].query::<()>(redis::cmd("SET").arg("direct").arg(1)).await {
                Ok(()) => return true,
                // The promotion cuts all connections.
                Err(error) if !error.class().is_alive() => drop(connections.remove(id)),
                Err(_) => {}
            }
        }
        false
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_is_not_waited_for() {
    // Detection would take 5 s: whatever is sooner is the agent's doing. Five in a row: by then the engines that died soon
    // after their start pause for 4 s before the next, and nobody may wait for that either.
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    let kills = std::env::var("REDOUBT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let (mut direct, mut gaps, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..kills {
        let mut took = Duration::ZERO;
        let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
            layer.kill_engine(primary);
            took = takes_a_write(layer, primary).await;
            eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary))
                .await;
        })
        .await;
        assert!(!verdict.two_primaries);
        lost_nothing_confirmed(&verdict);
        direct.push(took);
        gaps.push(verdict.longest_gap);
        lost.push(verdict.lost.len());
    }
    println!("engines killed: {kills}, lost {lost:?}");
    println!("writable for a plain client: {}", spread(direct.clone()));
    println!("gap of Sentinel-aware writers: {}", spread(gaps));
    assert!(direct.iter().all(|took| *took < Duration::from_secs(4)), "{direct:?}");
}

/// What several failovers in a row can leave behind: a Sentinel that names another node by an epoch as new as the others'.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_is_left_behind_is_shown_the_primary_again() {
    let layer = Layer::in_sync(&Options::default()).await;
    let (primary, behind) = (layer.primary().await.unwrap(), layer.sentinel_ids()[1]);
    let wrong = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let connection = Connection::open(&layer.agent_on(behind)).await.unwrap();
    sentinel::remove(&connection, &layer.master_name).await.unwrap();
    sentinel::monitor(&connection, &layer.master_name, &layer.nodes[&wrong].address, 6379, 2).await.unwrap();
    assert!(layer.check_in_sync().await.is_err(), "no Sentinel names another node");
    println!("monitors it again: in sync after {:?}", layer.wait_until_in_sync().await);
    assert_eq!(layer.primary().await, Some(primary), "it was the Sentinel that was wrong");
}

/// The next death comes as soon as the new primary takes writes (it has a replica then): some Sentinels are still busy with the
/// last failover, and none may be told to make the next with an epoch that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_agree_after_engines_that_die_one_after_the_other() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    let kills = std::env::var("REDOUBT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for _ in 0..kills {
        let mut primary = None;
        eventually("there is a primary that takes writes", SOON, async || {
            primary = layer.primary().await;
            let Some(primary) = primary else { return false };
            let Ok(connection) = Connection::open(&layer.endpoint(primary)).await else { return false };
            connection.query::<()>(redis::cmd("SET").arg("alive").arg(1)).await.is_ok()
        })
        .await;
        layer.kill_engine(primary.unwrap());
        eventually("it is dead", SOON, async || layer.replication(primary.unwrap()).await.is_none()).await;
    }
    println!("{kills} deaths in a row: whole after {:?}", layer.wait_until_in_sync().await);
}

/// Nobody but its agent can tell it: the others are dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_was_made_to_forget_knows_all_voters_again_although_they_are_dead() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let (one, others) = (layer.sentinel_ids()[0], layer.sentinel_ids()[1..].to_vec());
    for id in &others {
        layer.kill_node(*id);
    }
    let connection = Connection::open(&layer.operator_on(one)).await.unwrap();
    sentinel::reset(&connection, &layer.master_name).await.unwrap();
    let addresses: BTreeSet<Address> = others.iter().map(|id| layer.nodes[id].address.clone()).collect();
    eventually("it knows the declared voters", SOON, async || {
        let known = sentinel::master(&connection, &layer.master_name).await.unwrap();
        known.is_some_and(|known| known.other_sentinels.into_values().collect::<BTreeSet<_>>() == addresses)
    })
    .await;
    for id in others {
        layer.start_node(id);
    }
    println!("all Sentinels there again: whole after {:?}", layer.wait_until_in_sync().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_killed_with_its_agent_and_restarts_at_once_rolls_no_node_back() {
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    layer.mark_initialised();
    let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
        layer.kill_node(primary);
        layer.start_node(primary);
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    })
    .await;
    println!(
        "node killed: {} acknowledged, gap {:?}, lost {}",
        verdict.acknowledged,
        verdict.longest_gap,
        verdict.lost.len()
    );
    assert!(!verdict.two_primaries);
    lost_nothing_confirmed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_told_to_stop_hands_over_without_loss() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
        layer.terminate_node(primary).await;
        layer.start_node(primary);
    })
    .await;
    println!("handed over: {} acknowledged, gap {:?}", verdict.acknowledged, verdict.longest_gap);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
}

/// Each is told while the one before has just come back, and is perhaps not fit yet.
#[tokio::test(flavor = "multi_thread")]
async fn primaries_told_to_stop_one_right_after_the_other_all_hand_over() {
    // Longer than anything is waited for here: whoever is primary after another was handed over to.
    let mut layer = Layer::in_sync(&Options { detection: 120_000, ..Options::default() }).await;
    for _ in 0..2 {
        let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
            let ids = layer.data_ids();
            eventually("all are ready, as a disruption budget asks", SOON, async || {
                let mut ready = 0;
                for id in &ids {
                    ready += usize::from(layer.readiness(*id).await.is_some_and(|text| text.contains("200 OK")));
                }
                ready == ids.len()
            })
            .await;
            layer.terminate_node(primary).await;
            eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary))
                .await;
            layer.start_node(primary);
            // The next one is told as soon as this one serves, whole or not.
            let next = layer.primary().await.unwrap();
            eventually("it is ready again", SOON, async || {
                layer.readiness(primary).await.is_some_and(|text| text.contains("200 OK"))
            })
            .await;
            layer.terminate_node(next).await;
            eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != next)).await;
            layer.start_node(next);
        })
        .await;
        assert!(verdict.lost.is_empty() && !verdict.two_primaries, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_primary_that_restarts_within_the_detection_time_empties_no_replica() {
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 500).await;
    let primary = layer.primary().await.unwrap();
    let held = layer.keys(primary).await.unwrap();
    let replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
    eventually("both replicas have all", SOON, async || {
        let keys = futures::future::join_all(replicas.iter().map(|id| layer.keys(*id))).await;
        keys.iter().all(|keys| *keys == Some(held))
    })
    .await;
    layer.kill_node(primary);
    layer.wipe(primary);
    layer.start_node(primary);
    eventually("another is primary", SOON, async || {
        for id in &replicas {
            assert!(layer.keys(*id).await.is_none_or(|keys| keys >= held), "{id} was emptied");
        }
        layer.primary().await.is_some_and(|id| id != primary)
    })
    .await;
    layer.wait_until_in_sync().await;
    let refilled = layer.keys(primary).await.unwrap();
    assert!(refilled >= held, "{refilled} of {held}");
}

/// Waits until all that the primary holds is on the replicas, and in each node's files and record. Of a killed process the kernel
/// keeps what was written. `appendfsync everysec` puts writing off for two seconds at most while the disk is slow to sync, and the
/// record is a second behind.
async fn everything_is_in_files(layer: &Layer, primary: NodeId) {
    let connection = Connection::open(&layer.endpoint(primary)).await.unwrap();
    let patient = connection.with_response_timeout(2 * SOON);
    let replicas: usize =
        patient.query(redis::cmd("WAIT").arg(2).arg(u64::try_from(SOON.as_millis()).unwrap())).await.unwrap();
    assert_eq!(replicas, 2, "a replica does not follow");
    for id in layer.data_ids() {
        eventually("what waits to be written is, and the record is up to date", SOON, async || {
            let Ok(connection) = Connection::open(&layer.operator_on(id)).await else { return false };
            let persistence: String = connection.query(redis::cmd("INFO").arg("persistence")).await.unwrap_or_default();
            let Some(offset) = layer.replication(id).await.map(|info| info.offset()) else { return false };
            let lineage = layer.lineage(id).await.and_then(|answer| answer.lineage);
            persistence.contains("aof_buffer_length:0\r")
                && lineage.is_some_and(|lineage| lineage.offset.0 + 200 > offset.0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_come_back_with_the_same_data() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    for round in 0..3 {
        write_some(&layer, 300 * (round + 1)).await;
        let primary = layer.primary().await.unwrap();
        let held = keys_of(&layer.endpoint(primary)).await;
        everything_is_in_files(&layer, primary).await;
        let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
        for id in &ids {
            layer.kill_node(*id);
        }
        for id in &ids {
            layer.start_node(*id);
        }
        let took = layer.wait_until_in_sync().await;
        println!("all killed, round {round}: whole after {took:?}");
        let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        let lost: Vec<_> = held.difference(&now).collect();
        assert!(lost.is_empty(), "{} of {} are gone: {lost:?}", lost.len(), held.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_told_to_stop_at_once_come_back_with_the_same_data_and_soon() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    let mut took = Vec::new();
    for round in 1..=3 {
        write_some(&layer, 300 * round).await;
        let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        let began = Instant::now();
        layer.restart_all().await;
        let nobody = NodeId::data(u16::MAX);
        takes_a_write(&layer, nobody).await;
        println!("all stopped, round {round}: writable after {:.2?}", began.elapsed());
        took.push(began.elapsed());
        layer.wait_until_in_sync().await;
        println!("all stopped, round {round}: whole after {:.2?}", began.elapsed());
        let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        assert_eq!(held.difference(&now).count(), 0);
    }
    println!("all stopped: writable after {}", spread(took));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_dies_or_whose_file_is_damaged_comes_back() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let sentinel = NodeId::sentinel(0);
    let old = layer.engine_pids(sentinel);
    layer.kill_engine(sentinel);
    // It may be back before anybody sees that it is gone.
    eventually("another process is there", SOON, async || {
        let now = layer.engine_pids(sentinel);
        !now.is_empty() && now.iter().all(|pid| !old.contains(pid))
    })
    .await;
    layer.wait_until_in_sync().await;

    layer.kill_node(sentinel);
    let file = layer.data(sentinel).join("sentinel.conf");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..80]).unwrap();
    layer.start_node(sentinel);
    layer.wait_until_in_sync().await;
    assert!(file.with_extension("damaged").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_written_is_named_and_ends_no_engine() {
    let layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let engine = layer.engine_pids(primary);
    // As on a full disk or a read-only one, where only this file is in the way; root may write anywhere.
    let obstacle = layer.data(primary).join("redoubt/lineage.part");
    // The agent may be about to rename a file of this name.
    eventually("the name is free", SOON, async || std::fs::create_dir(&obstacle).is_ok()).await;
    let readiness_says = async |words: &str| layer.readiness(primary).await.is_some_and(|text| text.contains(words));
    write_some(&layer, 100).await;
    eventually("the file is named", SOON, async || readiness_says("lineage.part").await).await;
    assert!(readiness_says("200 OK").await && readiness_says("Serving").await);
    write_some(&layer, 400).await;
    std::fs::remove_dir(&obstacle).unwrap();
    write_some(&layer, 500).await;
    eventually("all is well again", SOON, async || !readiness_says("lineage.part").await).await;
    assert_eq!(layer.engine_pids(primary), engine);
    assert_eq!(layer.primary().await, Some(primary));
}

/// The keys of the primary, all of which both replicas confirmed.
async fn confirmed_keys(layer: &Layer) -> BTreeSet<String> {
    let endpoint = layer.endpoint(layer.primary().await.unwrap());
    let connection = Connection::open(&endpoint).await.unwrap();
    eventually("both replicas confirm a write", SOON, async || {
        let written = connection.query::<()>(redis::cmd("SET").arg("last").arg(1)).await;
        written.is_ok() && server::wait(&connection, 2, SOON).await.unwrap() == 2
    })
    .await;
    keys_of(&endpoint).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_old_data_and_never_an_empty_node() {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_in_sync().await;
    let held = confirmed_keys(&layer).await;
    // Everybody stops; then the first one's record is cut in half. It must not begin, and it must not be believed empty.
    let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    let damaged = NodeId::data(0);
    let file = layer.data(damaged).join("redoubt/lineage.json");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    for id in &ids {
        layer.start_node(*id);
    }
    layer.wait_until_in_sync().await;
    assert!(file.with_extension("damaged").exists());
    let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    assert_eq!(held.difference(&now).count(), 0);
}

/// The history runner can fail: without a pause, and without min-replicas-to-write, a failover loses what it is known to lose.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_sentinel_failover_loses_writes_and_the_history_says_so() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    let verdict = under_load(&mut layer, async |layer: &mut Layer, primary| {
        let endpoint = layer.operator_on(NodeId::sentinel(0));
        sentinel::failover(&Connection::open(&endpoint).await.unwrap(), &layer.master_name).await.unwrap();
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    })
    .await;
    println!("plain failover: {} acknowledged, {} lost", verdict.acknowledged, verdict.lost.len());
    assert!(!verdict.lost.is_empty());
}
