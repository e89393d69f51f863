//! Changes of a running layer that take a scheduler, an image or a drained Kubernetes node: nothing that was acknowledged is lost, and
//! what is wrong is stopped and undone.

use k8s_openapi::api::core::v1::Pod;
use redoubt::redis::{Connection, server};
use serde_json::json;

use crate::commands::kubectl;
use crate::disturbances::{memory_rolls, nothing_lost, rolled, set_and_reverted};
use crate::test_namespace::{ENGINES, REDIS_7, SOON, TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn memory_directives_and_image_roll_from_redis_7_to_8_under_load_and_lose_nothing() {
    let namespace = TestNamespace::create("e2e-roll-redis").await;
    let layer = namespace.layer("web", json!({"engine": {"image": REDIS_7}})).await;
    layer.ready().await;
    memory_rolls(&layer).await;
    rolled(&layer, "a directive that is taken at start only", json!({"config": {"databases": "4"}})).await;
    let connection = Connection::open(&layer.as_operator(layer.wait_until_in_sync().await).await).await.unwrap();
    let live = server::config_get(&connection, &["databases"]).await.unwrap();
    assert_eq!(live["databases"], "4");
    let before = layer.pod_uids().await;
    rolled(&layer, "a directive that is taken live", json!({"config": {"slowlog-max-len": "77"}})).await;
    assert_eq!(layer.pod_uids().await, before, "a live directive restarts nothing");
    let successor = ENGINES[1].1;
    rolled(&layer, "image", json!({"engine": {"image": successor}})).await;
    for pod in layer.pods().await.values() {
        assert_eq!(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), Some(successor));
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_can_take_stops_at_one_node_and_recovers_alone_when_it_is_reverted() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-reverted").await;
    set_and_reverted(
        &layer,
        "resources that no node has",
        json!({"cpu": "900"}),
        json!({"cpu": "20m"}),
        "Unschedulable",
    )
    .await;
    let nowhere = json!({"nodeSelector": {"no": "such-node"}});
    set_and_reverted(
        &layer,
        "an affinity that nothing satisfies",
        json!({"scheduling": nowhere}),
        json!({"scheduling": null}),
        "Unschedulable",
    )
    .await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_drained_under_load_loses_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-drained").await;
    let verdict = layer
        .under_load(async |layer, primary| {
            let pod = layer.pods().await.remove(&layer.pod(primary)).unwrap();
            let node = pod.spec.unwrap().node_name.unwrap();
            let served = layer.serving().await;
            // Only the primary's pod and a Sentinel's: volumes of this cluster cannot leave their node, so of two Sentinels that
            // share one the second is kept there by the disruption budget, and rightly.
            let is_there = |name: &String, pod: &Pod| {
                name.contains("-sentinel-") && pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&node)
            };
            let sentinel = layer.pods().await.into_iter().find(|(name, pod)| is_there(name, pod));
            let (sentinel, _) = sentinel.expect("a Sentinel on each node");
            let sentinel = sentinel.trim_start_matches("web-").trim_end_matches("-0");
            let selector = format!("redoubt.dev/layer=web,redoubt.dev/node in ({primary},{sentinel})");
            kubectl(&[
                "drain",
                &node,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--timeout=60s",
                "--pod-selector",
                &selector,
            ]);
            layer.has_a_new_primary(served).await;
            kubectl(&["uncordon", &node]);
        })
        .await;
    nothing_lost("drained", &verdict);
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_class_that_does_not_exist_is_reported_and_corrected_by_a_new_layer() {
    let namespace = TestNamespace::create("e2e-no-class").await;
    let volume = json!({"persistence": {"volume": {"storageClassName": "no-such-class"}}});
    let layer = namespace.layer("web", volume).await;
    // The scheduler does not look for the class: to it a claim is unbound. The claim says that there is no such class.
    eventually("the trouble is told", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, reason, message)| {
            (status.as_str(), reason.as_str()) == ("True", "Unschedulable")
                && message.contains("pod has unbound immediate PersistentVolumeClaims")
                && message.contains("ProvisioningFailed: storageclass.storage.k8s.io \"no-such-class\" not found")
        })
    })
    .await;
    assert!(!layer.is("Ready").await);
    kubectl(&["-n", &namespace.name, "delete", "datalayer", "web", "--wait=true"]);
    // Under another name: the claims of the old one are kept, with the class that they were made with.
    namespace.layer("corrected", json!({})).await.ready().await;
    namespace.delete().await;
}
