//! Mode Cluster: what the operator makes of it, and what its servers do while it looks.

use std::time::Instant;

use redoubt::model::NodeId;
use redoubt::model::cluster::Shard;
use serde_json::json;

use crate::cluster_layer::{KEYS, owners, process, reads_all, takes_writes, topology, write_all};
use crate::store::Store;
use crate::test_namespace::{SOON, TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_becomes_ready_and_outlives_dead_engines_and_the_end_of_all_pods() {
    let namespace = TestNamespace::create("nl-cluster").await;
    let layer = namespace.layer("web", json!({"mode": "Cluster"})).await;
    println!("ready after {:?}", layer.ready().await);
    let status = layer.object().await.status.unwrap();
    assert_eq!((status.shards.as_deref(), status.replicas_in_sync.as_deref()), (Some("3/3"), Some("3/3")));
    assert_eq!(status.primary, None);
    let first = owners(&layer).await;
    assert_eq!(first, [0, 10, 20].map(NodeId::data));
    let binding = layer.binding().await;
    assert_eq!(binding["cluster"], "true");
    assert!(binding["seeds"].contains("web-redis-20.nl-cluster") && !binding.contains_key("sentinels"), "{binding:?}");
    write_all(&layer).await;

    // One after the other: a primary whose engine dies has a successor, which on a busy machine is its own next process.
    for owner in first {
        let before = process(&layer, owner).await;
        let began = Instant::now();
        layer.kill_engine(owner).await;
        eventually("another process owns the slots and takes writes", SOON, async || {
            let now = topology(&layer).await.shards[&Shard::of(owner).unwrap()].owner;
            let is_another = match now {
                Some(now) if now == owner => process(&layer, owner).await.is_some_and(|now| Some(now) != before),
                Some(_) => true,
                None => false,
            };
            is_another && takes_writes(&layer, Shard::of(owner).unwrap()).await
        })
        .await;
        println!("{owner}: another process takes writes after {:?}", began.elapsed());
        layer.ready().await;
    }
    reads_all(&layer).await;
    let without_expiry = i64::try_from(KEYS.len()).unwrap();
    eventually("the audit has seen the keys of all shards", SOON, async || {
        let audit = layer.object().await.status.unwrap().audit;
        audit.is_some_and(|audit| audit.without_expiry == without_expiry)
    })
    .await;

    for node in layer.endpoints().await.into_keys() {
        layer.delete_pod(node).await;
    }
    println!("ready again after {:?}", layer.ready().await);
    reads_all(&layer).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_rolls_a_cluster_without_loss_and_replicas_come_and_go() {
    let namespace = TestNamespace::create("nl-cluster-roll").await;
    let layer = namespace.layer("web", json!({"mode": "Cluster", "memory": {"limit": "256Mi"}})).await;
    layer.ready().await;
    write_all(&layer).await;
    let pods = layer.pod_uids().await;
    layer.change(json!({"memory": {"limit": "320Mi"}})).await;
    layer.ready().await;
    assert!(layer.pod_uids().await.is_disjoint(&pods), "each pod has the new limit");
    reads_all(&layer).await;
    layer.change(json!({"replicas": 2})).await;
    layer.ready().await;
    assert_eq!(layer.object().await.status.unwrap().replicas_in_sync.as_deref(), Some("6/6"));
    layer.change(json!({"replicas": 1})).await;
    layer.ready().await;
    eventually("the removed nodes are forgotten", SOON, async || topology(&layer).await.is_settled()).await;
    assert_eq!(layer.pod_uids().await.len(), 6);
    reads_all(&layer).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_that_names_a_cluster_is_told_that_it_has_no_place_there() {
    let namespace = TestNamespace::create("nl-cluster-use").await;
    let layer = namespace.layer("web", json!({"mode": "Cluster", "shards": 1})).await;
    let store = Store::create(&namespace, "shop", json!({"idleTimeout": "30m", "layer": {"name": "web"}})).await;
    store.refused("ModeCluster", "serves no uses in this version").await;
    layer.ready().await;
    assert_eq!(layer.object().await.status.unwrap().shards.as_deref(), Some("1/1"));
    namespace.delete().await;
}
