//! Volumes that are wiped or lost: what a replica has survives, and where nothing is left a person decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::names;
use redoubt::model::node_config::REDIS_PORT;
use redoubt::model::{NodeId, NodeKind};
use redoubt::redis::{Connection, Endpoint, server};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::commands::kubectl;
use crate::disturbances::{delete_all_pods, serves_again};
use crate::place;
use crate::plane::plane;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually, is_ready};

/// Counts the keys of every node but `except` all the time; the smallest count of each that was seen.
fn watch_sizes(
    endpoints: BTreeMap<NodeId, Endpoint>,
    except: NodeId,
) -> (Arc<AtomicBool>, JoinHandle<BTreeMap<NodeId, u64>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut smallest = BTreeMap::new();
        while !until.load(Ordering::Relaxed) {
            for (node, endpoint) in &endpoints {
                if *node == except || node.kind != NodeKind::Data {
                    continue;
                }
                let patience = Duration::from_millis(300);
                let Ok(connection) = Connection::open_with(endpoint, patience, patience).await else { continue };
                let Ok(size) = connection.query::<u64>(&redis::cmd("DBSIZE")).await else { continue };
                let least = smallest.entry(*node).or_insert(size);
                *least = size.min(*least);
            }
        }
        smallest
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_with_an_empty_volume_empties_no_replica() {
    let namespace = TestNamespace::create("nl-wiped").await;
    // Longer than a pod takes to come back: Sentinel alone would never notice.
    let layer = namespace.layer("web", json!({"failover": {"detection": "30s"}})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    for restart in ["container", "pod"] {
        let primary = layer.wait_until_in_sync().await;
        let served = layer.serving().await;
        let (stop, sizes) = watch_sizes(layer.endpoints().await, primary);
        place::wipe(&namespace.name, &layer.pod(primary));
        match restart {
            "container" => layer.kill(primary, "redoubt"),
            _ => layer.delete_pod(primary).await,
        }
        layer.has_a_new_primary(served).await;
        layer.wait_until_in_sync().await;
        stop.store(true, Ordering::Relaxed);
        let sizes = sizes.await.unwrap();
        println!("{restart} of a wiped primary restarted: least keys of the others {sizes:?}");
        assert_eq!(sizes.into_values().collect::<Vec<_>>(), [1, 1], "a replica was emptied");
        assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_and_one_volume_lost_come_back_with_the_same_data() {
    let (namespace, layer) = TestNamespace::with_layer("nl-volume-lost").await;
    assert!(layer.set("kept").await);
    let primary = layer.wait_until_in_sync().await;
    place::wipe(&namespace.name, &layer.pod(primary));
    let old = layer.pod_uids().await;
    delete_all_pods(&layer).await;
    serves_again(&layer, &old).await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_no_volume_holds_any_more_is_given_up_by_a_person_alone() {
    let namespace = TestNamespace::create("nl-accept-loss").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("lost").await);
    // What each holds it remembers by itself: the operator's word that the layer was Ready may still be on its way.
    eventually("every data node has noted that it has keys", SOON, async || {
        (0..3).all(|node| {
            let folders = plane().kubelet.folders(&namespace.name, &layer.pod(NodeId::data(node)));
            let run = std::fs::read_dir(&folders["run"]).unwrap();
            run.flatten().any(|file| file.file_name().to_string_lossy().contains("had-keys"))
        })
    })
    .await;
    // All at once: one that lives a moment longer gives another its data.
    std::thread::scope(|threads| {
        for node in (0..3).map(NodeId::data) {
            let layer = &layer;
            threads.spawn(move || {
                place::wipe(&layer.identity.namespace, &layer.pod(node));
                layer.kill(node, "redoubt");
            });
        }
    });
    eventually("every data node waits", SOON, async || {
        let pods = layer.pods().await;
        let waits = |node| layer.pod(NodeId::data(node));
        (0..3).all(|node| pods.get(&waits(node)).is_some_and(|pod| !is_ready(pod)))
    })
    .await;
    let pods = layer.pod_uids().await;
    // Longer than any patience of the boot rule but that with a peer that is silent, and none is.
    let watched = std::time::Instant::now();
    while watched.elapsed() < Duration::from_secs(12) {
        let primary = layer.primary().await;
        assert_eq!(primary, None, "began by itself, with {:?}", layer.get("lost").await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (status, reason, message) = layer.condition("Degraded").await.unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NeedsPerson"), "{message}");
    assert!(message.contains("DataMissing") && message.contains("redoubt.dev/accept-loss"), "{message}");
    kubectl(&["-n", &namespace.name, "annotate", "datalayer", "web", "redoubt.dev/accept-loss=1"]);
    let took = eventually("it goes on", SOON, async || layer.set("new").await).await;
    println!("writable {took:?} after the loss was accepted");
    layer.ready().await;
    assert_eq!(layer.get("lost").await, None);
    assert_eq!(layer.pod_uids().await, pods, "no pod may have to be deleted");
    namespace.delete().await;
}

/// What a node had alone is told in the status, by an event and in `Degraded`, and goes when a person says so.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_one_node_had_alone_is_reported_until_a_person_drops_it() {
    let namespace = TestNamespace::create("nl-aside").await;
    let layer = namespace.layer("web", json!({"durability": {"minReplicasToWrite": 0}})).await;
    layer.ready().await;
    assert!(layer.set("of-all").await);
    let primary = layer.wait_until_in_sync().await;
    let alone = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    // A second primary for a while, as one behind a cut network is. The operator would end it at once.
    place::stop_operator(&namespace.name);
    let (endpoints, operator) = (layer.endpoints().await, layer.as_operator(alone).await);
    let operator = Connection::open(&operator).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&endpoints[&alone]).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    let folders = plane().kubelet.folders(&namespace.name, &layer.pod(alone));
    let files = folders["data"].join("aside/.standing/appendonlydir");
    eventually("there are links to its files", SOON, async || {
        let files = std::fs::read_dir(&files).into_iter().flatten().flatten();
        let mut texts = files.filter_map(|file| std::fs::read(file.path()).ok());
        texts.any(|text| text.windows(9).any(|words| words == b"only-here"))
    })
    .await;
    let record = folders["data"].join("redoubt/lineage.json");
    eventually("its record says that it is a primary with this key", SOON, async || {
        let record = std::fs::read_to_string(&record).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
        record["role"] == "Primary" && record["keys"] == 2
    })
    .await;
    server::replica_of(&operator, &endpoints[&primary].address, REDIS_PORT).await.unwrap();
    place::start_operator(&namespace.name);

    let kept = async || {
        let nodes = layer.object().await.status.map(|status| status.nodes).unwrap_or_default();
        nodes.into_iter().filter(|node| !node.kept_aside.is_empty()).map(|node| (node.name, node.kept_aside)).collect()
    };
    let mut told: Vec<(String, Vec<redoubt::api::data_layer_status::KeptFolder>)> = Vec::new();
    eventually("the status names what is kept", SOON, async || {
        told = kept().await;
        !told.is_empty()
    })
    .await;
    assert_eq!((told.len(), told[0].0.as_str(), told[0].1.len()), (1, layer.pod_owner(alone).as_str(), 1), "{told:?}");
    let folder = told[0].1[0].folder.clone();
    eventually("Degraded says so", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, reason, message)| {
            status == "True" && reason == "DataKeptAside" && message.contains(&folder)
        })
    })
    .await;
    let events = || {
        let all = kubectl(&["-n", &namespace.name, "get", "events.events.k8s.io", "-o", "jsonpath={.items[*].note}"]);
        all.matches(&format!("/data/aside/{folder} holds")).count()
    };
    eventually("there is one event of it", SOON, async || events() == 1).await;
    kubectl(&["-n", &namespace.name, "annotate", "datalayer", "web", &format!("redoubt.dev/drop-aside={folder}")]);
    eventually("it is dropped", SOON, async || {
        kept().await.is_empty() && !folders["data"].join("aside").join(&folder).exists()
    })
    .await;
    layer.ready().await;
    layer.nothing_is_wrong().await;
    assert_eq!(events(), 1, "told once");
    namespace.delete().await;
}

/// Kubernetes keeps a claim that is being deleted for as long as a pod uses it: an end of the pod is the end of the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_being_deleted_goes_with_no_restart_of_the_operators_but_one_that_a_replica_is_filled_after() {
    let namespace = TestNamespace::create("nl-ending-volume").await;
    let delete = |claim: &str| kubectl(&["-n", &namespace.name, "delete", "pvc", claim, "--wait=false"]);
    let told = async |layer: &Layer, words: &str| {
        eventually("Degraded says so", SOON, async || {
            layer.condition("Degraded").await.is_some_and(|(status, reason, message)| {
                status == "True" && reason == "VolumeBeingDeleted" && message.contains(words)
            })
        })
        .await;
    };
    let single = namespace.layer("single", json!({"mode": "Standalone"})).await;
    single.ready().await;
    assert!(single.set("kept").await);
    let pods = single.pod_uids().await;
    delete("data-single-redis-0-0");
    told(&single, "copy the data before its pod ends").await;
    single.change(json!({"cpu": "23m"})).await;
    kubectl(&["-n", &namespace.name, "rollout", "restart", "statefulset", "single-redis-0"]);
    eventually("the change says what holds it up", SOON, async || {
        let progressing = single.condition("Progressing").await;
        progressing.is_some_and(|(_, _, message)| message.contains("redis-0 is not restarted: its volume claim"))
    })
    .await;
    assert_eq!((single.pod_uids().await, single.get("kept").await.as_deref()), (pods, Some("kept")));
    single.api::<DataLayer>().delete("single", &DeleteParams::default()).await.unwrap();

    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let primary = layer.wait_until_in_sync().await;
    let claim = names::volume_claim("web", primary);
    let uid = async || layer.api::<PersistentVolumeClaim>().get(&claim).await.ok().and_then(|claim| claim.uid());
    let old = uid().await;
    delete(&claim);
    told(&layer, "rollout restart statefulset").await;
    kubectl(&["-n", &namespace.name, "rollout", "restart", "statefulset", &layer.pod_owner(primary)]);
    eventually("it has another volume", SOON, async || uid().await.is_some_and(|new| Some(new) != old)).await;
    layer.nothing_is_wrong().await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    namespace.delete().await;
}
