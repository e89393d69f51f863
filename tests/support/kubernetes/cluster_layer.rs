//! One layer of mode Cluster: what its servers say together, and keys of each shard.

use std::collections::BTreeMap;

use redis::cmd;
use redoubt::model::cluster::Shard;
use redoubt::model::topology::Topology;
use redoubt::model::{Address, NodeId};
use redoubt::redis::{Connection, cluster_nodes, server};

use crate::polling::eventually;
use crate::test_namespace::{Layer, SOON};

/// What all servers say, put together.
pub async fn topology(layer: &Layer) -> Topology {
    let (mut declared, mut views) = (BTreeMap::new(), BTreeMap::new());
    for (node, endpoint) in layer.endpoints().await {
        declared.insert(node, Address(endpoint.address.clone()));
        let Ok(connection) = Connection::open(&layer.as_operator(node).await).await else { continue };
        if let Ok(view) = cluster_nodes::view(&connection).await {
            views.insert(node, view);
        }
    }
    Topology::of(&declared, &views)
}

/// The owner of each shard, once all servers agree.
pub async fn owners(layer: &Layer) -> Vec<NodeId> {
    let mut owners = Vec::new();
    eventually("all servers agree", SOON, async || {
        let topology = topology(layer).await;
        owners = topology.shards.values().filter_map(|shard| shard.owner).collect();
        topology.is_settled()
    })
    .await;
    owners
}

/// Sends a command to whichever primary takes it.
pub async fn ask<T: redis::FromRedisValue>(layer: &Layer, command: &redis::Cmd) -> Option<T> {
    for endpoint in layer.endpoints().await.values() {
        let Ok(connection) = Connection::open(endpoint).await else { continue };
        // Others say who has it.
        if let Ok(answer) = connection.query(command).await {
            return Some(answer);
        }
    }
    None
}

/// Keys in each third of the slots.
pub const KEYS: [&str; 6] = ["b", "3", "c", "1", "a", "x"];

pub async fn write_all(layer: &Layer) {
    for key in KEYS {
        eventually("a key is written", SOON, async || {
            ask::<String>(layer, cmd("SET").arg(key).arg(key)).await.is_some()
        })
        .await;
    }
}

pub async fn reads_all(layer: &Layer) {
    for key in KEYS {
        eventually(&format!("the key {key} is there"), SOON, async || {
            ask::<Option<String>>(layer, cmd("GET").arg(key)).await.flatten().as_deref() == Some(key)
        })
        .await;
    }
}

/// The server process of a node.
pub async fn process(layer: &Layer, node: NodeId) -> Option<String> {
    let connection = Connection::open(&layer.endpoints().await[&node]).await.ok()?;
    server::info(&connection).await.ok()?.run_id().map(str::to_owned)
}

/// Whether a server takes a write of a key of the shard.
pub async fn takes_writes(layer: &Layer, shard: Shard) -> bool {
    let key = KEYS[2 * usize::from(shard.0)];
    ask::<String>(layer, cmd("SET").arg(key).arg(key)).await.is_some()
}
