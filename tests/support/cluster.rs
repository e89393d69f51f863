//! A Cluster of two primaries, without replicas.

use redis::cmd;
use redoubt::dataplane::{Library, load};
use redoubt::redis::Connection;

use super::engine_process::{Engine, PORT, Process};
use super::eventually;
use super::layer::SOON;

/// Two primaries with this library. The first has slots 0 to 8191, the second the others.
pub async fn cluster(engine: &Engine, library: &Library) -> Vec<(Process, Connection)> {
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let lines = |address: &str| vec!["cluster-enabled yes".to_owned(), format!("cluster-announce-ip {address}")];
        let process = Process::start(engine, false, lines).await;
        let connection = process.connect().await;
        load(&connection, library).await.unwrap();
        nodes.push((process, connection));
    }
    for ((_, connection), [first, last]) in nodes.iter().zip([[0, 8_191], [8_192, 16_383]]) {
        connection.query::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last)).await.unwrap();
    }
    let meet = cmd("CLUSTER").arg("MEET").arg(&nodes[1].0.address).arg(PORT).clone();
    nodes[0].1.query::<()>(&meet).await.unwrap();
    for (_, connection) in &nodes {
        eventually("the Cluster is whole", SOON, async || {
            let info: String = connection.query(cmd("CLUSTER").arg("INFO")).await.unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }
    nodes
}

/// The slot of a key.
pub async fn slot_of(connection: &Connection, key: &str) -> usize {
    connection.query(cmd("CLUSTER").arg("KEYSLOT").arg(key)).await.unwrap()
}
