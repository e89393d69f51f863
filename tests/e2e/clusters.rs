//! Mode Cluster on real nodes: the bus goes through Services, and a Kubernetes node may be lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redoubt::model::NodeId;
use redoubt::model::cluster::Shard;
use serde_json::json;

use crate::cluster_layer::{owners, reads_all, takes_writes, topology, write_all};
use crate::commands::CutOff;
use crate::disturbances::delete_all_pods;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_outlives_a_dead_engine_the_end_of_all_pods_and_the_loss_of_a_kubernetes_node() {
    let namespace = TestNamespace::create("e2e-cluster").await;
    let layer = namespace.layer("web", json!({"mode": "Cluster"})).await;
    println!("ready after {:?}", layer.ready().await);
    write_all(&layer).await;

    let old = owners(&layer).await[0];
    let began = Instant::now();
    layer.kill_engine(old).await;
    eventually("the shard takes writes", SOON, async || takes_writes(&layer, Shard(0)).await).await;
    println!("a shard whose engine died takes writes after {:?}", began.elapsed());
    layer.ready().await;

    let old = layer.pod_uids().await;
    delete_all_pods(&layer).await;
    eventually("each pod is another one", SOON, async || {
        let now = layer.pod_uids().await;
        now.len() == old.len() && now.is_disjoint(&old)
    })
    .await;
    reads_all(&layer).await;
    println!("ready again after {:?}", layer.ready().await);

    let (shard, node) = alone(&layer).await;
    let old = topology(&layer).await.shards[&shard].owner;
    let began = Instant::now();
    let cut = CutOff::begin(&node);
    // The engines of the other shards elect: no agent of this one is there.
    eventually("another owns the slots", Duration::from_secs(30), async || {
        topology(&layer).await.shards[&shard].owner.is_some_and(|now| Some(now) != old)
    })
    .await;
    println!("a node that is cut off has a successor after {:?}", began.elapsed());
    cut.reconnect();
    layer.ready().await;
    owners(&layer).await;
    reads_all(&layer).await;
    namespace.delete().await;
}

/// A shard whose primary is the only one on its Kubernetes node, and that node: most primaries are left without it.
async fn alone(layer: &Layer) -> (Shard, String) {
    for _ in 0..10 {
        let mut pods = layer.pods().await;
        let mut owners_on: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for owner in owners(layer).await {
            let pod = pods.remove(&layer.pod(owner)).unwrap();
            owners_on.entry(pod.spec.and_then(|spec| spec.node_name).unwrap()).or_default().push(owner);
        }
        if let Some((node, owners)) = owners_on.iter().find(|(_, owners)| owners.len() == 1) {
            return (Shard::of(owners[0]).unwrap(), node.clone());
        }
        // All three are on one: one of them hands over to a replica elsewhere.
        let moved = owners_on.into_values().next().unwrap()[0];
        layer.delete_pod(moved).await;
        layer.ready().await;
    }
    panic!("no primary is alone on its Kubernetes node");
}
