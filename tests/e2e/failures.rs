//! What fails, and what that costs: writers with unique values go on all the time, and the checker judges.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams};
use redoubt::model::{NodeId, NodeKind};
use serde_json::json;

use crate::history::Verdict;
use crate::stage::{ENGINES, Layer, REDIS_7, SOON, Stage, WRITERS, cluster, eventually, kubectl};

/// `spec.failover.detection` where nothing is said.
const DETECTION: Duration = Duration::from_secs(5);

fn tell(what: &str, verdict: &Verdict) {
    println!(
        "{what}: {} acknowledged, {} lost, longest gap {:?}",
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.longest_gap
    );
}

/// At most what was in flight: a replica had all the rest. (Replication is asynchronous; each writer has one write under way.)
fn lost_only_what_no_replica_had(verdict: &Verdict) {
    assert!(verdict.lost.len() <= WRITERS, "{:?}", verdict.lost);
    assert!(!verdict.two_primaries, "two primaries acknowledged at once");
}

async fn moved_from(layer: &Layer, old: NodeId) {
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|node| node != old)).await;
}

/// The primary's Service selects the primary's pod.
async fn service_follows(layer: &Layer) {
    let path = "jsonpath={.spec.selector.statefulset\\.kubernetes\\.io/pod-name}";
    eventually("the primary's Service follows", Duration::from_secs(5), async || {
        let Some(primary) = layer.primary().await else { return false };
        let selected = kubectl(&["-n", &layer.identity.namespace, "get", "service", "web-redis", "-o", path]);
        selected == layer.pod(primary)
    })
    .await;
}

/// How often something is repeated: `make soak` sets `REDOUBT_ROUNDS` for more.
fn rounds(at_least: usize) -> usize {
    std::env::var("REDOUBT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0).max(at_least)
}

async fn killed_and_deleted(namespace: &str, engine: &str) {
    let stage = Stage::set(namespace).await;
    let layer = stage.layer("web", json!({"engine": {"image": engine}})).await;
    layer.ready().await;
    let process = if engine.contains("valkey") { "valkey-server" } else { "redis-server" };
    for round in 0..rounds(2) {
        let verdict = layer
            .under_load(async |layer, primary| {
                let served = layer.serving().await;
                layer.kill(primary, process);
                layer.is_served_anew(served).await;
            })
            .await;
        tell(&format!("{engine}, engine killed, round {round}"), &verdict);
        lost_only_what_no_replica_had(&verdict);
        service_follows(&layer).await;
    }
    for round in 0..rounds(1) {
        let verdict = layer
            .under_load(async |layer, primary| {
                let served = layer.serving().await;
                layer.kill(primary, "redoubt");
                layer.is_served_anew(served).await;
            })
            .await;
        tell(&format!("{engine}, agent killed, round {round}"), &verdict);
        lost_only_what_no_replica_had(&verdict);
        service_follows(&layer).await;
    }
    for round in 0..rounds(1) {
        let verdict = layer
            .under_load(async |layer, primary| {
                let served = layer.serving().await;
                layer.delete_pod(primary).await;
                layer.is_served_anew(served).await;
            })
            .await;
        tell(&format!("{engine}, pod deleted, round {round}"), &verdict);
        assert_eq!(verdict.lost, Vec::<String>::new(), "a pod that is told to stop hands over without loss");
        assert!(!verdict.two_primaries);
        service_follows(&layer).await;
    }
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_7_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-7", REDIS_7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_8_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-8", ENGINES[1].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_8_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-valkey-8", ENGINES[2].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_again_and_again_rolls_nobody_back() {
    let stage = Stage::set("e2e-again").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    let verdict = layer
        .under_load(async |layer, first| {
            let mut primary = first;
            for _ in 0..4 {
                let served = layer.serving().await;
                layer.kill(primary, "redis-server");
                layer.is_served_anew(served).await;
                primary = layer.primary().await.unwrap_or(primary);
            }
        })
        .await;
    tell("four primaries killed in a row", &verdict);
    // Each of the four may cost what was in flight.
    assert!(verdict.lost.len() <= 4 * WRITERS, "{:?}", verdict.lost);
    assert!(!verdict.two_primaries);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_loads_longer_than_the_detection_time_is_never_waited_for() {
    let stage = Stage::set("e2e-big").await;
    let further = json!({"memory": {"limit": "1536Mi"}, "failover": {"detection": "1s"}});
    let layer = stage.layer("web", further).await;
    layer.ready().await;
    layer.fill(600).await;
    for process in ["redis-server", "redoubt"] {
        let verdict = layer
            .under_load(async |layer, primary| {
                let served = layer.serving().await;
                layer.kill(primary, process);
                layer.is_served_anew(served).await;
            })
            .await;
        tell(&format!("600 MiB, {process} killed"), &verdict);
        lost_only_what_no_replica_had(&verdict);
        assert_eq!(layer.get("filled:0").await.map(|value| value.len()), Some(1 << 16));
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_node_is_cut_off_is_replaced_and_heals_without_a_second_primary() {
    let stage = Stage::set("e2e-cut").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    let began = Instant::now();
    let verdict = layer
        .under_load(async |layer, primary| {
            let pod = layer.pods().await.remove(&layer.pod(primary)).unwrap();
            let node = pod.spec.unwrap().node_name.unwrap();
            cluster(&["cut", &node]);
            moved_from(layer, primary).await;
            println!("another is primary {:?} after the cut", began.elapsed());
            cluster(&["heal", &node]);
        })
        .await;
    tell("the primary's node cut off", &verdict);
    // min-replicas-max-lag bounds what the old primary may acknowledge alone; our writers are on its side for that long.
    assert!(!verdict.two_primaries, "both sides acknowledged at once");
    assert!(verdict.longest_gap < DETECTION + Duration::from_secs(10), "{:?}", verdict.longest_gap);
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_with_an_empty_volume_empties_no_replica() {
    let stage = Stage::set("e2e-wiped").await;
    // Longer than a pod takes to come back: Sentinel alone would never notice.
    let layer = stage.layer("web", json!({"failover": {"detection": "30s"}})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let primary = layer.heals().await;
    wipe(&layer, primary);
    layer.kill(primary, "redoubt");
    eventually("the key is served", SOON, async || layer.get("kept").await.as_deref() == Some("kept")).await;
    layer.heals().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    stage.strike().await;
}

/// Removes everything on a node's volume while its server runs.
fn wipe(layer: &Layer, node: NodeId) {
    let script = "rm -rf /data/..?* /data/.[!.]* /data/*";
    kubectl(&["-n", &layer.identity.namespace, "exec", &layer.pod(node), "--", "sh", "-c", script]);
}

pub async fn delete_all_pods(layer: &Layer) {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = layer.api();
    let label = ListParams::default().labels(&format!("redoubt.dev/layer={}", layer.identity.name));
    pods.delete_collection(&DeleteParams::default(), &label).await.unwrap();
}

async fn all_pods_deleted(namespace: &str, engine: &str, rounds: usize) {
    let stage = Stage::set(namespace).await;
    let layer = stage.layer("web", json!({"engine": {"image": engine}})).await;
    layer.ready().await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let key = format!("round-{round}");
        eventually("it takes a write", SOON, async || layer.set(&key).await).await;
        layer.heals().await;
        let old = layer.pod_uids().await;
        let began = Instant::now();
        delete_all_pods(&layer).await;
        eventually("new pods take writes", Duration::from_mins(1), async || {
            layer.pod_uids().await.is_disjoint(&old) && layer.set("writable").await
        })
        .await;
        println!("{engine}: all pods deleted, round {round}: writable after {:?}", began.elapsed());
        slowest = slowest.max(began.elapsed());
        layer.heals().await;
        for earlier in 0..=round {
            let key = format!("round-{earlier}");
            assert_eq!(layer.get(&key).await.as_deref(), Some(key.as_str()));
        }
    }
    println!("{engine}: all pods deleted {rounds} times: slowest {slowest:?}");
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_ten_times_come_back_with_the_same_data() {
    all_pods_deleted("e2e-all-redis-7", REDIS_7, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data_on_redis_8() {
    all_pods_deleted("e2e-all-redis-8", ENGINES[1].1, rounds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data_on_valkey_8() {
    all_pods_deleted("e2e-all-valkey-8", ENGINES[2].1, rounds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_and_one_volume_lost_come_back_with_the_same_data() {
    let stage = Stage::set("e2e-volume-lost").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let primary = layer.heals().await;
    wipe(&layer, primary);
    let old = layer.pod_uids().await;
    delete_all_pods(&layer).await;
    eventually("new pods serve the key", Duration::from_mins(2), async || {
        layer.pod_uids().await.is_disjoint(&old) && layer.get("kept").await.as_deref() == Some("kept")
    })
    .await;
    layer.heals().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_and_one_held_back_come_back_with_the_same_data() {
    let stage = Stage::set("e2e-held-back").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let primary = layer.heals().await;
    let held = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    // Its StatefulSet makes no pod for now: somebody scaled it to nothing, and the operator is not there to mend that.
    crate::stage::scale_operator("0");
    let name = redoubt::api::names::node("web", held);
    let (stateful, namespace) = (format!("statefulset/{name}"), &stage.namespace);
    kubectl(&["-n", namespace, "scale", &stateful, "--replicas=0"]);
    let (began, old) = (Instant::now(), layer.pod_uids().await);
    delete_all_pods(&layer).await;
    eventually("new pods serve the key", Duration::from_mins(2), async || {
        layer.pod_uids().await.is_disjoint(&old) && layer.get("kept").await.as_deref() == Some("kept")
    })
    .await;
    println!("all pods deleted and one held back: readable after {:?}", began.elapsed());
    crate::stage::scale_operator("2");
    layer.ready().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_whose_pods_are_replaced_20_times_still_know_each_other_and_nobody_else() {
    let stage = Stage::set("e2e-churn").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    let primary = layer.heals().await;
    for round in 0..20 {
        let sentinel = NodeId::sentinel(round % 3);
        let old = layer.pods().await[&layer.pod(sentinel)].metadata.uid.clone().unwrap();
        layer.delete_pod(sentinel).await;
        layer.is_replaced(sentinel, &old).await;
    }
    layer.ready().await;
    assert_eq!(layer.primary().await, Some(primary), "no Sentinel's death moves the primary");
    for (node, _) in layer.endpoints().await.into_iter().filter(|(node, _)| node.kind == NodeKind::Sentinel) {
        let connection = redoubt::redis::Connection::open(&layer.as_operator(node).await).await.unwrap();
        let master =
            redoubt::redis::sentinel::master(&connection, &layer.identity.master_name()).await.unwrap().unwrap();
        assert_eq!((master.other_sentinels.len(), master.replicas.len()), (2, 2), "{node}");
    }
    stage.strike().await;
}
