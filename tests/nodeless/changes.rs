//! Changes of a running layer, under load: nothing that was acknowledged is lost, and what is wrong is stopped and undone.

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, PostParams};
use redoubt::model::{NodeId, NodeKind};
use redoubt::redis::{Connection, sentinel, server};
use serde_json::{Value, json};

use crate::commands::kubectl;
use crate::disturbances::{evicted, memory_rolls, nothing_lost, rolled, set_and_reverted};
use crate::test_namespace::{Layer, SOON, TestNamespace, engine, eventually};

/// A change that restarts pods waits for a person, and rolls when that has approved it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_restarts_pods_waits_for_approval_where_that_is_asked_for() {
    let namespace = TestNamespace::create("nl-approval").await;
    let layer = namespace.layer("web", json!({"update": {"approval": "Manual"}})).await;
    layer.ready().await;
    let before = layer.pod_uids().await;
    layer.change(json!({"cpu": "30m"})).await;
    eventually("it waits for the approval", SOON, async || {
        let progressing = layer.condition("Progressing").await;
        progressing.is_some_and(|(_, _, message)| message.contains("redoubt.dev/approved-generation"))
    })
    .await;
    assert!(layer.is("Ready").await, "it serves as it was");
    assert_eq!(layer.pod_uids().await, before, "nothing may restart before it is approved");
    let approved = format!("redoubt.dev/approved-generation={}", layer.object().await.metadata.generation.unwrap());
    kubectl(&["-n", &layer.identity.namespace, "annotate", "datalayer", "web", &approved]);
    layer.ready().await;
    let replaced = layer.pod_uids().await.difference(&before).count();
    assert_eq!(replaced, 3, "all data pods are new");
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_directives_roll_under_load_and_lose_nothing() {
    let namespace = TestNamespace::create("nl-roll").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    memory_rolls(&layer).await;
    rolled(&layer, "a directive that is taken at start only", json!({"config": {"databases": "4"}})).await;
    let connection = Connection::open(&layer.as_operator(layer.wait_until_in_sync().await).await).await.unwrap();
    let live = server::config_get(&connection, &["databases"]).await.unwrap();
    assert_eq!(live["databases"], "4");
    let before = layer.pod_uids().await;
    rolled(&layer, "a directive that is taken live", json!({"config": {"slowlog-max-len": "77"}})).await;
    assert_eq!(layer.pod_uids().await, before, "a live directive restarts nothing");
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_stops_at_one_node_and_recovers_alone_when_it_is_reverted() {
    let (namespace, layer) = TestNamespace::with_layer("nl-reverted").await;
    let (no_image, image) = ("localhost/no-such-image:1", engine());
    let change = |image: &str| -> Value { json!({"engine": {"image": image}}) };
    set_and_reverted(&layer, "an image that does not exist", change(no_image), change(image), "Image").await;
    set_and_reverted(
        &layer,
        "a directive that the engine refuses at its start",
        json!({"config": {"no-such-directive": "1"}}),
        json!({"config": null}),
        "does not run",
    )
    .await;
    namespace.leave(layer).await;
}

async fn data_nodes(layer: &Layer) -> usize {
    layer.endpoints().await.keys().filter(|node| node.kind == NodeKind::Data).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_added_and_removed_under_load_and_nothing_is_lost() {
    let (namespace, layer) = TestNamespace::with_layer("nl-scaled").await;
    // `scale` is there once the field is written.
    layer.change(json!({"replicas": 2})).await;
    layer.ready().await;
    let scaled = async |replicas: &str, nodes: usize| {
        let verdict = layer
            .under_load(async |layer, _| {
                let replicas = format!("--replicas={replicas}");
                kubectl(&["-n", &namespace.name, "scale", "datalayer/web", &replicas]);
                layer.ready().await;
                assert_eq!(data_nodes(layer).await, nodes);
            })
            .await;
        nothing_lost(&format!("{replicas} replicas"), &verdict);
    };
    scaled("3", 4).await;
    // Pods that were there before know the new one too.
    let verdict = evicted(&layer).await;
    nothing_lost("evicted with a replica more", &verdict);
    let target = NodeId::data(3);
    let annotation = format!("redoubt.dev/promote={}", layer.pod(target));
    kubectl(&["-n", &namespace.name, "annotate", "datalayer", "web", &annotation]);
    eventually("the node that goes next is primary", SOON, async || layer.primary().await == Some(target)).await;
    kubectl(&["-n", &namespace.name, "annotate", "datalayer", "web", "redoubt.dev/promote-"]);
    layer.ready().await;
    scaled("2", 3).await;
    // It has its volume again, with the data of when it went, as a primary.
    scaled("3", 4).await;
    // Several at once, up and down.
    scaled("5", 6).await;
    scaled("1", 2).await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_data_pod_or_sentinel_is_not_evicted_while_one_is_away() {
    let (namespace, layer) = TestNamespace::with_layer("nl-budget").await;
    let primary = layer.wait_until_in_sync().await;
    let pods: Api<Pod> = layer.api();
    let evict = async |node| pods.evict(&layer.pod(node), &EvictParams::default()).await;
    let replicas: Vec<NodeId> = (0..3).map(NodeId::data).filter(|node| *node != primary).collect();
    for [first, second] in [[replicas[0], replicas[1]], [NodeId::sentinel(0), NodeId::sentinel(1)]] {
        let old = layer.pods().await;
        let uid = |node| old[&layer.pod(node)].metadata.uid.clone().unwrap();
        // The controller of budgets counts the pods that are ready a moment later.
        eventually("the first is evicted", SOON, async || evict(first).await.is_ok()).await;
        let refused = evict(second).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");
        layer.is_replaced(first, &uid(first)).await;
        assert_eq!(layer.pods().await[&layer.pod(second)].metadata.uid, Some(uid(second)));
        layer.ready().await;
    }
    namespace.leave(layer).await;
}

/// A quota that was lowered, or a webhook, keeps the first from being made again. A budget by `maxUnavailable` counted the StatefulSets of
/// the pods that there are, and let all go one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn no_second_pod_is_evicted_where_the_first_cannot_be_made_again() {
    let (namespace, layer) = TestNamespace::with_layer("nl-budget-quota").await;
    let primary = layer.wait_until_in_sync().await;
    let (pods, budgets, quotas): (Api<Pod>, Api<PodDisruptionBudget>, Api<ResourceQuota>) =
        (layer.api(), layer.api(), layer.api());
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    eventually("the quota is in force", SOON, async || {
        quotas.get("none").await.unwrap().status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let evict = async |node| pods.evict(&layer.pod(node), &EvictParams::default()).await;
    let replicas: Vec<NodeId> = (0..3).map(NodeId::data).filter(|node| *node != primary).collect();
    for (budget, [first, second]) in
        [("web-redis", [replicas[0], replicas[1]]), ("web-sentinel", [NodeId::sentinel(0), NodeId::sentinel(1)])]
    {
        eventually("the first is evicted", SOON, async || evict(first).await.is_ok()).await;
        eventually("its end is counted", SOON, async || {
            let counted = budgets.get(budget).await.unwrap().status.unwrap();
            counted.expected_pods == 2 && counted.current_healthy == 2
        })
        .await;
        let refused = evict(second).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");
    }
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    layer.ready().await;
    namespace.leave(layer).await;
}

/// Quorum and voters as each Sentinel counts them.
async fn voters_are(layer: &Layer, expected: u16) {
    let sentinels = layer.sentinels().await;
    assert_eq!(sentinels.len(), usize::from(expected), "a Service each");
    for endpoint in sentinels {
        // One that was busy with nothing may be starting anew.
        let mut master = None;
        eventually("the Sentinel answers", SOON, async || {
            let Ok(connection) = Connection::open(&endpoint).await else { return false };
            master = sentinel::master(&connection, &layer.identity.master_name()).await.ok().flatten();
            master.is_some()
        })
        .await;
        let master = master.unwrap();
        assert_eq!(master.other_sentinels.len(), usize::from(expected) - 1, "{}", endpoint.address);
        assert_eq!(master.quorum, expected / 2 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_are_added_and_removed_and_those_that_went_do_not_count() {
    let (namespace, layer) = TestNamespace::with_layer("nl-sentinels-scaled").await;
    for count in [5_u16, 3] {
        let before = layer.restarts().await;
        layer.change(json!({"failover": {"sentinels": count}})).await;
        let took = layer.ready().await;
        println!("{count} Sentinels: ready after {took:.1?}");
        voters_are(&layer, count).await;
        let after = layer.restarts().await;
        assert!(before.iter().all(|(pod, count)| after.get(pod).is_none_or(|now| now == count)), "nothing restarts");
    }
    namespace.delete().await;
}
