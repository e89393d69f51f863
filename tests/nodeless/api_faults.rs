//! What the API server does to the operator, and what it refuses to controllers: a layer is finished all the same, and what runs is
//! not disturbed.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use redoubt::model::NodeId;
use serde_json::json;

use crate::children::children;
use crate::commands::{kubectl, refuse};
use crate::disturbances::{FOLLOWED, nothing_lost};
use crate::faults::{Fault, Faults};
use crate::place;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};
use crate::truth::status_is_true;

/// A layer has each of its objects once, and no pod restarted.
async fn is_complete(layer: &Layer) {
    let selector = ListParams::default().labels(&format!("redoubt.dev/layer={}", layer.identity.name));
    let claims = layer.api::<PersistentVolumeClaim>().list(&selector).await.unwrap().items.len();
    let workloads = layer.api::<StatefulSet>().list(&selector).await.unwrap().items.len();
    let pods = layer.pods().await.len();
    assert_eq!(
        (children(layer).await.len(), workloads, pods, claims),
        (13, 6, 6, 6),
        "objects, StatefulSets, pods, volumes"
    );
    assert!(layer.restarts().await.values().all(|count| *count == 0), "{:?}", layer.restarts().await);
}

/// Makes a layer while the API server does this to the operator, until it has asked so often; then waits until it is finished.
async fn made_under(namespace: &str, fault: Fault, requests: usize) {
    let namespace = TestNamespace::create(namespace).await;
    let faults = Faults::default();
    faults.set(fault);
    place::start_operator_with(&namespace.name, faults.clone());
    let layer = namespace.layer("web", json!({})).await;
    eventually("the operator asks again", SOON, async || faults.requests() >= requests).await;
    assert!(!layer.is("Ready").await);
    faults.set(Fault::None);
    println!("{fault:?}: Ready {:.1?} after it ended", layer.ready().await);
    status_is_true(&layer).await;
    is_complete(&layer).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_becomes_ready_although_the_api_server_answers_500() {
    made_under("nl-500", Fault::Answers(500), 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_becomes_ready_although_the_api_server_answers_429() {
    made_under("nl-429", Fault::Answers(429), 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_becomes_ready_although_each_write_conflicts() {
    // Watches and reads work: the lists of all kinds, and then writes in vain.
    made_under("nl-409", Fault::Answers(409), 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_becomes_ready_although_the_api_server_was_cut_off_at_the_beginning() {
    made_under("nl-cut-early", Fault::Cut, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_becomes_ready_at_an_api_server_that_answers_after_300_ms() {
    let namespace = TestNamespace::create("nl-slow").await;
    place::faults(&namespace.name).set(Fault::Slow(Duration::from_millis(300)));
    let layer = namespace.layer("web", json!({})).await;
    println!("slow: Ready after {:.1?}", layer.ready().await);
    status_is_true(&layer).await;
    is_complete(&layer).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_again_and_again_hide_no_change() {
    let namespace = TestNamespace::create("nl-watches").await;
    let faults = place::faults(&namespace.name);
    let ending = faults.clone();
    let ends = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(700)).await;
            ending.end_watches();
        }
    });
    let layer = namespace.layer("web", json!({})).await;
    println!("watches end: Ready after {:.1?}", layer.ready().await);
    status_is_true(&layer).await;
    is_complete(&layer).await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    layer.change(json!({"config": {"slowlog-max-len": "77"}})).await;
    println!("watches end: a change is proven after {:.1?}", layer.ready().await);
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "a live directive restarts nothing");
    ends.abort();
    namespace.delete().await;
}

/// The primary dies while the operator cannot reach the API server, or is answered errors: Sentinels and agents need neither.
async fn fail_primary_under(namespace: &str, fault: Fault) {
    let (namespace, layer) = TestNamespace::with_layer(namespace).await;
    assert!(layer.set("kept").await);
    let faults = place::faults(&namespace.name);
    let (pods, writes) = (layer.pod_uids().await, faults.writes());
    faults.set(fault);
    // Each watch is opened again, and refused.
    faults.end_watches();
    let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
    layer.kill_engine(primary).await;
    let began = std::time::Instant::now();
    layer.has_a_new_primary(served).await;
    let served_by = layer.wait_until_in_sync().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    eventually("it takes a write", SOON, async || layer.set("meanwhile").await).await;
    // For five seconds at least: its watches and renewals fail meanwhile, and nothing may follow from that.
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(began.elapsed())).await;
    println!("{fault:?}: {} writes tried meanwhile", faults.writes() - writes);
    faults.set(Fault::None);
    let followed = layer.services_follow(served_by, SOON).await;
    println!("{fault:?}: the Services followed {followed:.1?} after it ended");
    layer.ready().await;
    eventually("status names the primary of now", SOON, async || {
        let named = layer.object().await.status.and_then(|status| status.primary);
        layer.primary_in_sync().await.is_some_and(|primary| named == Some(layer.pod_owner(primary)))
    })
    .await;
    status_is_true(&layer).await;
    assert_eq!(layer.pod_uids().await, pods, "no pod was replaced");
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_while_the_api_server_is_cut_off_is_replaced_and_the_rest_follows() {
    fail_primary_under("nl-cut", Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_while_the_api_server_answers_500_is_replaced_and_the_rest_follows() {
    fail_primary_under("nl-500-later", Fault::Answers(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_in_time_at_an_api_server_that_answers_after_200_ms() {
    let (namespace, layer) = TestNamespace::with_layer("nl-slow-later").await;
    place::faults(&namespace.name).set(Fault::Slow(Duration::from_millis(200)));
    let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
    layer.kill_engine(primary).await;
    let served_by = layer.has_a_new_primary(served).await;
    let followed = layer.services_follow(served_by, FOLLOWED).await;
    println!("slow: the Services followed {followed:.1?} after another served");
    layer.ready().await;
    place::faults(&namespace.name).set(Fault::None);
    namespace.leave(layer).await;
}

/// It hangs where it was: right after its `n`-th write. A process that is killed there leaves the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_after_any_write_of_a_creation_leaves_what_the_next_one_finishes() {
    let namespace = TestNamespace::create("nl-killed-operator").await;
    for after in [1, 4, 8, 13, 20] {
        let name = format!("after-{after}");
        let faults = Faults::ending_after(after);
        place::start_operator_with(&namespace.name, faults.clone());
        let layer = namespace.layer(&name, json!({})).await;
        eventually("it has come so far", SOON, async || faults.writes() >= after).await;
        place::start_operator(&namespace.name);
        println!("killed after {after} writes: Ready {:.1?} later", layer.ready().await);
        status_is_true(&layer).await;
        is_complete(&layer).await;
        kubectl(&["-n", &namespace.name, "delete", "datalayer", &name, "--wait=false"]);
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_after_any_write_of_a_roll_leaves_what_the_next_one_finishes_without_loss() {
    let namespace = TestNamespace::create("nl-killed-roll").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    for (after, memory) in [(1, "300Mi"), (3, "310Mi"), (6, "320Mi")] {
        let verdict = layer
            .under_load(async |layer, _| {
                let faults = Faults::ending_after(after);
                place::start_operator_with(&namespace.name, faults.clone());
                layer.change(json!({"memory": {"limit": memory}})).await;
                eventually("it has come so far", SOON, async || faults.writes() >= after).await;
                place::start_operator(&namespace.name);
                layer.ready().await;
            })
            .await;
        nothing_lost(&format!("killed after {after} writes of a roll"), &verdict);
        is_complete(&layer).await;
        for node in (0..3).map(NodeId::data) {
            let pod = layer.pods().await.remove(&layer.pod(node)).unwrap();
            let limits = pod.spec.unwrap().containers[0].resources.clone().unwrap().limits.unwrap();
            let mebibytes: u64 = limits["memory"].0.parse::<u64>().unwrap() >> 20;
            assert_eq!(format!("{mebibytes}Mi"), memory, "{node}");
        }
    }
    namespace.delete().await;
}

/// A policy that refuses a node's pod in one namespace; it is in force a moment later.
fn pods_are_refused(namespace: &str, node: &str) {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let label = "object.metadata.labels[?'redoubt.dev/node'].orValue('')";
    refuse(namespace, &rule, &format!("!has(object.metadata.labels) || {label} != '{node}'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_a_policy_refuses_leaves_the_rest_serving_and_comes_when_the_policy_goes() {
    let (namespace, layer) = TestNamespace::with_layer("nl-policy").await;
    assert!(layer.set("kept").await);
    let primary = layer.wait_until_in_sync().await;
    let refused = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    pods_are_refused(&namespace.name, &refused.to_string());
    let old = layer.pods().await;
    eventually("its pod is refused", SOON, async || {
        // Until the policy is in force it comes back.
        kubectl(&["-n", &namespace.name, "delete", "pod", &layer.pod(refused), "--ignore-not-found", "--wait=true"]);
        kubectl(&["-n", &namespace.name, "get", "events", "-o", "jsonpath={.items[*].message}"])
            .contains("a policy of the test")
    })
    .await;
    assert!(!layer.pods().await.contains_key(&layer.pod(refused)));
    eventually("the layer says who refuses it", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, reason, message)| {
            status == "True" && reason == "FailedCreate" && message.contains("a policy of the test")
        })
    })
    .await;
    assert!(layer.is("Ready").await, "the others serve");
    println!("refused: {:?}", layer.condition("Degraded").await);
    assert_eq!(layer.primary().await, Some(primary));
    assert!(layer.set("meanwhile").await, "the others serve");
    kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", &namespace.name]);
    layer.ready().await;
    assert_eq!(layer.get("meanwhile").await.as_deref(), Some("meanwhile"));
    let now = layer.pods().await;
    for (name, pod) in old.iter().filter(|(name, _)| **name != layer.pod(refused)) {
        assert_eq!(now[name].metadata.uid, pod.metadata.uid, "{name}");
    }
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_a_quota_leaves_no_room_for_becomes_ready_when_there_is_room() {
    let namespace = TestNamespace::create("nl-quota").await;
    kubectl(&["-n", &namespace.name, "create", "quota", "small", "--hard=pods=4"]);
    eventually("the quota is in force", SOON, async || {
        let used = ["-n", &namespace.name, "get", "quota", "small", "-o", "jsonpath={.status.hard.pods}"];
        kubectl(&used) == "4"
    })
    .await;
    let layer = namespace.layer("web", json!({})).await;
    eventually("four pods are there", SOON, async || layer.pods().await.len() == 4).await;
    assert!(!layer.is("Ready").await);
    println!("quota: {:?}", layer.condition("Progressing").await);
    kubectl(&["-n", &namespace.name, "delete", "quota", "small"]);
    println!("quota: Ready {:.1?} after it went", layer.ready().await);
    status_is_true(&layer).await;
    is_complete(&layer).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_pods_are_never_started_says_so_and_becomes_ready_when_they_are() {
    let kubelet = &crate::plane::plane().kubelet;
    let namespace = TestNamespace::create("nl-never-started").await;
    let held = ["web-redis-2-0", "web-sentinel-2-0"];
    for pod in held {
        kubelet.hold(&namespace.name, pod);
    }
    let layer = namespace.layer("web", json!({})).await;
    // A new layer begins once each data node says that it has no data, or one has been silent for a minute.
    let mut told = String::new();
    eventually("it says which pod is missing", SOON, async || {
        let now = layer.condition("Progressing").await.map(|(_, _, message)| message).unwrap_or_default();
        if now != told {
            println!("never started: {now}");
            told = now;
        }
        told.contains("redis-2") && !told.contains("redis-1")
    })
    .await;
    kubelet.release(&namespace.name, held[0]);
    eventually("the others serve", SOON, async || layer.set("kept").await).await;
    assert!(!layer.is("Ready").await, "a Sentinel is missing");
    kubelet.release(&namespace.name, held[1]);
    layer.ready().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    is_complete(&layer).await;
    namespace.delete().await;
}
