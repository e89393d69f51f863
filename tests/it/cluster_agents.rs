//! Mode Cluster with agents: they make one Cluster of their servers, and a dead primary has a successor within a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redoubt::model::cluster::{ClusterView, Shard, ViewAnswer};
use redoubt::model::lineage::{Activity, Lineage};
use redoubt::model::topology::{Topology, Unsettled};
use redoubt::model::{Address, NodeId, Role};
use redoubt::plan::cluster::slots::shares;
use redoubt::redis::{Connection, cluster, cluster_nodes, server};

use crate::support::engine_process::{Engine, engines};
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON, WRITTEN_AT_ONCE};

/// Three shards of two nodes each.
fn options(engine: &Engine) -> Options {
    Options {
        data_nodes: 2,
        shards: 3,
        min_replicas: 0,
        settings: WRITTEN_AT_ONCE,
        engine: Some(engine.clone()),
        ..Options::default()
    }
}

fn declared(layer: &Layer) -> BTreeMap<NodeId, Address> {
    layer.nodes.values().map(|node| (node.id, node.address.clone())).collect()
}

async fn views(layer: &Layer) -> BTreeMap<NodeId, ClusterView> {
    let mut views = BTreeMap::new();
    for node in layer.data_ids() {
        let Ok(connection) = Connection::open(&layer.operator_on(node)).await else { continue };
        if let Ok(view) = cluster_nodes::view(&connection).await {
            views.insert(node, view);
        }
    }
    views
}

pub async fn topology(layer: &Layer) -> Topology {
    Topology::of(&declared(layer), &views(layer).await)
}

pub async fn agree(layer: &Layer) -> Topology {
    let mut last = Topology::default();
    let settled = tokio::time::timeout(SOON, async {
        loop {
            last = topology(layer).await;
            if last.is_settled() {
                return;
            }
            forget(layer, &last).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let is_settled = settled.await.is_ok();
    assert!(is_settled, "{:#?}", last.unsettled);
    last
}

/// What the operator does about the old name of a server that lost its files.
async fn forget(layer: &Layer, topology: &Topology) {
    let all_answer = !topology.unsettled.iter().any(|what| matches!(what, Unsettled::Silent { .. }));
    for what in &topology.unsettled {
        if let Unsettled::Stranger { viewer, id } = what
            && all_answer
            && topology.strangers[id].is_empty()
            && let Ok(connection) = Connection::open(&layer.operator_on(*viewer)).await
        {
            let _ = cluster::forget(&connection, id).await;
        }
    }
}

/// A layer that serves: the operator's part is to give the slots away.
pub async fn formed(engine: &Engine) -> Layer {
    let layer = Layer::start(&options(engine));
    let mut last = Topology::default();
    eventually("all servers know each other", SOON, async || {
        last = topology(&layer).await;
        last.unsettled.iter().all(|what| matches!(what, Unsettled::Unowned | Unsettled::NotServing { .. }))
    })
    .await;
    let staying: BTreeSet<Shard> = last.shards.keys().copied().collect();
    for (shard, slots) in shares(&last.unowned, &BTreeMap::new(), &staying) {
        let connection = Connection::open(&layer.operator_on(shard.node(0))).await.unwrap();
        cluster::add_slots(&connection, &slots).await.unwrap();
    }
    agree(&layer).await;
    layer.mark_initialised();
    layer
}

/// Writes a key of the shard at a server; whether it confirmed.
async fn set(layer: &Layer, node: NodeId, key: &str) -> bool {
    let Ok(connection) = Connection::open(&layer.endpoint(node)).await else { return false };
    connection.query::<String>(redis::cmd("SET").arg(key).arg(key)).await.is_ok()
}

pub async fn get(layer: &Layer, node: NodeId, key: &str) -> Option<String> {
    let mut found = None;
    eventually("the server answers", SOON, async || {
        let Ok(connection) = Connection::open(&layer.endpoint(node)).await else { return false };
        let asked = connection.query::<Option<String>>(redis::cmd("GET").arg(key)).await;
        found = asked.ok();
        found.is_some()
    })
    .await;
    found.flatten()
}

/// Keys of the first shard: its slots are the lowest third.
const KEYS: [&str; 3] = ["{b}a", "{b}b", "{b}c"];

pub async fn is_primary(layer: &Layer, node: NodeId) -> bool {
    let Ok(connection) = Connection::open(&layer.operator_on(node)).await else { return false };
    server::replication(&connection).await.is_ok_and(|info| info.role() == Some(Role::Primary))
}

/// Until each shard has one primary, and its replica takes part in what that writes, by the words of servers and agents.
pub async fn in_sync(layer: &Layer) {
    eventually("each replica takes part", SOON, async || {
        let topology = topology(layer).await;
        for (shard, known) in &topology.shards {
            let Some(owner) = known.owner else { return false };
            let knows = |view: &ViewAnswer| view.owners.get(&shard.0).is_some_and(|it| it.ordinal == owner.ordinal);
            for node in layer.data_ids() {
                let answer = layer.lineage(node).await.and_then(|answer| answer.view);
                // Agents vote by what they saw last.
                if !answer.as_ref().is_some_and(knows) {
                    return false;
                }
            }
            for node in layer.data_ids().into_iter().filter(|node| Shard::of(*node) == Some(*shard)) {
                if !takes_part(layer, node, owner).await {
                    return false;
                }
            }
        }
        true
    })
    .await;
}

/// Whether a node is the owner of its shard's slots, or a replica of it that is sent all, and its agent knows.
async fn takes_part(layer: &Layer, node: NodeId, owner: NodeId) -> bool {
    let Some(answer) = layer.lineage(node).await.filter(|answer| answer.activity == Activity::Serving) else {
        return false;
    };
    let Ok(connection) = Connection::open(&layer.operator_on(node)).await else { return false };
    let Ok(info) = server::replication(&connection).await else { return false };
    let role = if node == owner { Role::Primary } else { Role::Replica };
    let follows = info.primary_link().is_none_or(|link| link.up && link.primary == layer.nodes[&owner].address);
    // Of the same history as its primary, by both records.
    let history = async |node| Some(layer.lineage(node).await?.lineage?.replication_id);
    let (own, primary) = (history(node).await, history(owner).await);
    let is_known = |it: &Lineage| it.role == role && it.synced && it.link_up && own == primary;
    info.role() == Some(role) && follows && answer.lineage.as_ref().is_some_and(is_known)
}

/// Writes a key at a primary, and waits until its replica has it.
async fn set_on_both(layer: &Layer, node: NodeId, key: &str) {
    let connection = Connection::open(&layer.endpoint(node)).await.unwrap();
    connection.query::<String>(redis::cmd("SET").arg(key).arg(key)).await.unwrap();
    // Of the writes of this connection.
    assert_eq!(connection.query::<u64>(redis::cmd("WAIT").arg(1).arg(2_000)).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_make_one_cluster_of_their_servers() {
    for engine in engines() {
        let began = Instant::now();
        let layer = formed(&engine).await;
        in_sync(&layer).await;
        println!("{}: in sync after {:?}", engine.name, began.elapsed());
        for node in layer.data_ids() {
            eventually("it is ready", SOON, async || {
                layer.readiness(node).await.is_some_and(|it| it.contains("200 OK"))
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_has_a_successor_within_a_moment_and_nothing_that_it_had_is_lost() {
    for engine in engines() {
        let layer = formed(&engine).await;
        in_sync(&layer).await;
        let (mut owner, mut replica) = (Shard(0).node(0), Shard(0).node(1));
        // Three in a row: engines alone refuse a second election for a while.
        for key in KEYS {
            set_on_both(&layer, owner, key).await;
            let began = Instant::now();
            layer.kill_engine(owner);
            eventually("the replica takes writes", SOON, async || is_primary(&layer, replica).await).await;
            println!("{}: {replica} is primary after {:?}", engine.name, began.elapsed());
            assert_eq!(get(&layer, replica, key).await.as_deref(), Some(key), "{}", engine.name);
            agree(&layer).await;
            in_sync(&layer).await;
            assert!(!is_primary(&layer, owner).await);
            (owner, replica) = (replica, owner);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_told_to_stop_hands_over_and_all_pods_that_are_deleted_come_back_with_the_data() {
    for engine in engines() {
        let mut layer = formed(&engine).await;
        in_sync(&layer).await;
        let (owner, replica) = (Shard(0).node(0), Shard(0).node(1));
        assert!(set(&layer, owner, KEYS[0]).await);
        layer.terminate_node(owner).await;
        assert!(is_primary(&layer, replica).await, "{}: it took over before the other ended", engine.name);
        assert_eq!(get(&layer, replica, KEYS[0]).await.as_deref(), Some(KEYS[0]));
        layer.start_node(owner);
        agree(&layer).await;
        in_sync(&layer).await;
        assert!(set(&layer, replica, KEYS[1]).await);
        layer.restart_all().await;
        agree(&layer).await;
        let topology = topology(&layer).await;
        let now = topology.shards[&Shard(0)].owner.unwrap();
        for key in &KEYS[..2] {
            assert_eq!(get(&layer, now, key).await.as_deref(), Some(*key), "{}", engine.name);
        }
    }
}
