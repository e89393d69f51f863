//! A primary that a person asks for, and the label that says which pod it is.

use kube::ResourceExt as _;
use redoubt::api::data_layer_status::PromotionStatus;
use redoubt::model::{NodeId, NodeKind};
use serde_json::json;

use crate::commands::kubectl;
use crate::polling::eventually_or;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

fn annotate(layer: &Layer, value: &str) {
    let value = format!("redoubt.dev/promote{value}");
    kubectl(&["-n", &layer.identity.namespace, "annotate", "datalayer", "web", "--overwrite", &value]);
}

async fn answer(layer: &Layer) -> Option<PromotionStatus> {
    layer.object().await.status?.promotion
}

/// Waits until each pod is labelled with what it is.
async fn roles_are_right(layer: &Layer) {
    let primary = layer.wait_until_in_sync().await;
    eventually("each pod has the label of its role", SOON, async || {
        let pods = layer.pods().await;
        layer.endpoints().await.keys().all(|node| {
            let role = match node.kind {
                NodeKind::Sentinel => "sentinel",
                NodeKind::Data if *node == primary => "primary",
                NodeKind::Data => "replica",
            };
            pods.get(&layer.pod(*node))
                .is_some_and(|pod| pod.labels().get("redoubt.dev/role").is_some_and(|it| it == role))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_asked_for_is_moved_once_under_load_and_labels_follow() {
    let namespace = TestNamespace::create("nl-promote").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    roles_are_right(&layer).await;
    let pods = layer.pod_uids().await;
    let asked = async |state: &str| {
        let is_answered = async || answer(&layer).await.is_some_and(|it| it.state == state);
        let is_told = eventually_or("it is answered", SOON, is_answered).await;
        assert!(is_told.is_some(), "not {state}: {:?}", answer(&layer).await);
    };
    // A name that is none: nothing is moved, and it says which there are.
    let first = layer.wait_until_in_sync().await;
    annotate(&layer, "=web-redis-7-0");
    asked("Refused").await;
    assert!(answer(&layer).await.unwrap().message.contains("name one of web-redis-0-0, web-redis-1-0"));
    assert_eq!(layer.wait_until_in_sync().await, first);
    let target = (0..3).rev().map(NodeId::data).find(|node| *node != first).unwrap();
    let verdict = layer
        .under_load(async |layer, _| {
            annotate(layer, &format!("={}", layer.pod(target)));
            eventually("it is the primary", SOON, async || layer.primary().await == Some(target)).await;
        })
        .await;
    assert_eq!((verdict.lost, verdict.two_primaries), (Vec::<String>::new(), false));
    asked("Done").await;
    roles_are_right(&layer).await;
    assert_eq!(layer.pod_uids().await, pods, "nothing restarts");
    // Once: a failover is not undone, though the annotation is still there.
    let serving = layer.serving().await;
    layer.kill_engine(target).await;
    layer.has_a_new_primary(serving).await;
    layer.ready().await;
    let elected = layer.wait_until_in_sync().await;
    roles_are_right(&layer).await;
    assert_eq!(answer(&layer).await.unwrap().state, "Done");
    annotate(&layer, "-");
    eventually("the answer goes with the request", SOON, async || answer(&layer).await.is_none()).await;
    assert_eq!(layer.wait_until_in_sync().await, elected);
    let events = kubectl(&["-n", &namespace.name, "get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("PromotionRefused") && events.contains("Promoted"), "{events}");
    namespace.delete().await;
}
