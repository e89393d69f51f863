//! What fails, and what that costs: writers with unique values go on all the time, and the checker judges.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use redoubt::model::{NodeId, NodeKind};
use redoubt::redis::{Connection, sentinel};
use serde_json::json;

use crate::commands::kubectl;
use crate::disturbances::{Death, delete_all_pods, fail_primary_under_load, killed_and_deleted, serves_again};
use crate::place;
use crate::plane::plane;
use crate::test_namespace::{Layer, SOON, TestNamespace, engine, eventually};

/// `REDOUBT_ENGINE` names another engine.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_replica_had_is_lost_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("nl-killed", engine(), [(Death::Engine, 1), (Death::Agent, 1), (Death::Pod, 1)]).await;
}

/// Seconds that a node's server took for its data when it started last, by its own word; `None` while it is not through.
/// `before`: its log as it was.
fn loaded_in(layer: &Layer, node: NodeId, before: &str) -> Option<f64> {
    let log = plane().kubelet.log(&layer.identity.namespace, &layer.pod(node));
    // A new pod has a log of its own.
    let news = log.strip_prefix(before).unwrap_or(&log);
    let told = news.lines().filter_map(|line| line.split_once("DB loaded from ")).next_back()?.1.to_owned();
    // "append only file: 2.345 seconds", or of the base file and of each further one.
    told.split_once(": ")?.1.split_once(" seconds")?.0.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_loads_longer_than_the_detection_time_is_never_waited_for() {
    const DETECTED: Duration = Duration::from_secs(1);
    const KEYS: u32 = 3_000_000;
    let namespace = TestNamespace::create("nl-big").await;
    let further = json!({"memory": {"limit": "1Gi"}, "failover": {"detection": "1s"}});
    let layer = namespace.layer("web", further).await;
    layer.ready().await;
    layer.fill(KEYS).await;
    for death in [Death::Engine, Death::Agent, Death::Pod] {
        let what = format!("{KEYS} keys, {death:?} of the primary dies");
        let old = layer.wait_until_in_sync().await;
        let before = plane().kubelet.log(&namespace.name, &layer.pod(old));
        let verdict = fail_primary_under_load(&layer, &what, death, DETECTED).await;
        let mut loaded = None;
        eventually("the old primary says how long it loaded", SOON, async || {
            loaded = loaded_in(&layer, old, &before);
            loaded.is_some()
        })
        .await;
        let loaded = Duration::from_secs_f64(loaded.unwrap());
        println!("{what}: it loads {loaded:?}, longest gap {:?}", verdict.longest_gap);
        assert!(loaded > DETECTED, "the dataset is too small for the claim: {loaded:?}");
        assert_eq!(layer.get(&format!("filled:{}", KEYS - 1)).await, Some((KEYS - 1).to_string()));
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_and_one_held_back_come_back_with_the_same_data() {
    let (namespace, layer) = TestNamespace::with_layer("nl-held-back").await;
    assert!(layer.set("kept").await);
    let primary = layer.wait_until_in_sync().await;
    let held = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    plane().kubelet.hold(&namespace.name, &layer.pod(held));
    let (began, old) = (Instant::now(), layer.pod_uids().await);
    delete_all_pods(&layer).await;
    serves_again(&layer, &old).await;
    println!("all pods deleted and one held back: serves after {:?}", began.elapsed());
    eventually("the layer says that one is missing", SOON, async || layer.is("Degraded").await).await;
    plane().kubelet.release(&namespace.name, &layer.pod(held));
    layer.ready().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_whose_pods_are_replaced_20_times_still_know_each_other_and_no_others() {
    let (namespace, layer) = TestNamespace::with_layer("nl-churn").await;
    let primary = layer.wait_until_in_sync().await;
    for round in 0..20 {
        let sentinel = NodeId::sentinel(round % 3);
        let old = layer.pods().await[&layer.pod(sentinel)].metadata.uid.clone().unwrap();
        // Every other time it comes back with nothing.
        if round % 2 == 1 {
            place::wipe(&namespace.name, &layer.pod(sentinel));
        }
        layer.delete_pod(sentinel).await;
        layer.is_replaced(sentinel, &old).await;
    }
    layer.ready().await;
    assert_eq!(layer.primary().await, Some(primary), "no Sentinel's death moves the primary");
    for (node, _) in layer.endpoints().await.into_iter().filter(|(node, _)| node.kind == NodeKind::Sentinel) {
        let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
        let master = sentinel::master(&connection, &layer.identity.master_name()).await.unwrap().unwrap();
        assert_eq!((master.other_sentinels.len(), master.replicas.len()), (2, 2), "{node}");
    }
    namespace.leave(layer).await;
}

/// There is no limit of memory here: what a kubelet writes into the status of a pod whose container the kernel ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_the_kernel_ended_for_memory_is_reported_though_it_is_back() {
    let namespace = TestNamespace::create("nl-no-memory").await;
    let layer = namespace.layer("web", json!({"mode": "Standalone"})).await;
    layer.ready().await;
    let ended =
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": Timestamp::now().to_string()}});
    let patch = json!([{"op": "add", "path": "/status/containerStatuses/0/lastState", "value": ended}]).to_string();
    let pod = layer.pod(NodeId::data(0));
    kubectl(&["-n", &namespace.name, "patch", "pod", &pod, "--subresource=status", "--type=json", "-p", &patch]);
    eventually("it is told", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, reason, message)| {
            status == "True" && reason == "ServerFault" && message.contains("redis-0: the kernel ended its container")
        })
    })
    .await;
    assert!(layer.is("Ready").await, "it serves");
    namespace.delete().await;
}
