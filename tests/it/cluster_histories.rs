//! Mode Cluster under whatever happens to its nodes: what a replica confirmed is never lost, and the Cluster comes back by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redis::cmd;
use redoubt::model::NodeId;
use redoubt::model::cluster::Shard;
use redoubt::redis::Connection;

use super::cluster_agents::{agree, formed, get, in_sync, is_primary};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, SOON};

/// Rounds of each engine. `REDOUBT_HISTORY_ROUNDS` says another number.
const ROUNDS: usize = 6;
/// A hash tag of each shard.
const TAGS: [&str; 3] = ["b", "c", "a"];

/// What happens in a round.
#[derive(Clone, Copy, Debug)]
enum Event {
    EngineDies,
    TwoEnginesDie,
    NodeDies,
    NodeStops,
    NodeLosesItsVolume,
    AllStop,
    AllDie,
}

const EVENTS: [Event; 7] = [
    Event::EngineDies,
    Event::TwoEnginesDie,
    Event::NodeDies,
    Event::NodeStops,
    Event::NodeLosesItsVolume,
    Event::AllStop,
    Event::AllDie,
];

/// The primary of a shard by its own word.
async fn primary(layer: &Layer, shard: Shard) -> NodeId {
    let mut found = None;
    eventually("the shard has a primary that takes writes", SOON, async || {
        for node in [shard.node(0), shard.node(1)] {
            if is_primary(layer, node).await {
                found = Some(node);
            }
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Writes keys to each shard, and remembers those that a replica confirmed.
async fn write(layer: &Layer, round: usize, confirmed: &mut BTreeMap<String, Shard>) {
    for (number, tag) in TAGS.into_iter().enumerate() {
        let shard = Shard(u16::try_from(number).unwrap());
        let at = primary(layer, shard).await;
        let Ok(connection) = Connection::open(&layer.endpoint(at)).await else { continue };
        for count in 0..5 {
            let key = format!("{{{tag}}}:{round}:{count}");
            let written = connection.query::<String>(cmd("SET").arg(&key).arg(&key)).await.is_ok();
            let copies = connection.query::<u64>(cmd("WAIT").arg(1).arg(1_000)).await.unwrap_or(0);
            if written && copies > 0 {
                confirmed.insert(key, shard);
            }
        }
    }
}

async fn happen(layer: &mut Layer, event: Event, random: &mut StdRng) {
    let nodes = layer.data_ids();
    let node = nodes[random.random_range(0..nodes.len())];
    let other = nodes[random.random_range(0..nodes.len())];
    match event {
        Event::EngineDies => layer.kill_engine(node),
        Event::TwoEnginesDie => {
            layer.kill_engine(node);
            layer.kill_engine(other);
        }
        Event::NodeDies => {
            layer.kill_node(node);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
            layer.start_node(node);
        }
        Event::NodeStops => {
            layer.terminate_node(node).await;
            layer.start_node(node);
        }
        Event::NodeLosesItsVolume => {
            layer.terminate_node(node).await;
            layer.wipe(node);
            layer.start_node(node);
        }
        Event::AllStop => layer.restart_all().await,
        Event::AllDie => {
            for node in &nodes {
                layer.kill_node(*node);
            }
            for node in nodes {
                layer.start_node(node);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_confirmed_outlives_whatever_happens_to_the_nodes_of_a_cluster() {
    let seed =
        std::env::var("REDOUBT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let rounds = std::env::var("REDOUBT_HISTORY_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut random = StdRng::seed_from_u64(seed);
    for engine in engines() {
        let mut layer = formed(&engine).await;
        in_sync(&layer).await;
        let mut confirmed = BTreeMap::new();
        let mut history = Vec::new();
        for round in 0..rounds {
            write(&layer, round, &mut confirmed).await;
            let event = EVENTS[random.random_range(0..EVENTS.len())];
            history.push(event);
            println!("{} round {round}: {event:?} (seed {seed})", engine.name);
            happen(&mut layer, event, &mut random).await;
            agree(&layer).await;
            in_sync(&layer).await;
            for (key, shard) in &confirmed {
                let at = primary(&layer, *shard).await;
                let found = get(&layer, at, key).await;
                assert_eq!(found.as_ref(), Some(key), "{}, seed {seed}: {history:?}", engine.name);
            }
        }
        assert!(confirmed.len() > rounds, "{}: too few writes were confirmed", engine.name);
    }
}
