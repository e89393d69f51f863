//! What a change must pass on a real cluster, on the operator's default engine: each claim here takes a kubelet, a proxy for
//! Services, a scheduler or an eviction. They share layers; all else is in the areas, and without nodes in `tests/nodeless`.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams};
use redoubt::api::data_layer::DataLayer;
use serde_json::json;

use crate::children::{are_mended, children};
use crate::commands::kubectl;
use crate::creation::becomes_ready;
use crate::disturbances::{Death, evicted, killed_and_deleted, memory_rolls, nothing_lost, rounds, set_and_reverted};
use crate::failures::all_pods_deleted;
use crate::operator::services_follow_without_a_leader;
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace, engine};

// Its name makes it the first: the layer that it makes serves the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_is_ready_and_its_status_is_true_of_the_servers() {
    let (namespace, layer) = becomes_ready("gate-ready", engine()).await;
    layer.change(json!({"replicas": null})).await;
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_replica_had_is_lost_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("gate-killed", engine(), [(Death::Engine, 1), (Death::Agent, 1), (Death::Pod, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data() {
    all_pods_deleted("gate-all", engine(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_evicted_under_load_loses_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("gate-evicted").await;
    for round in 0..rounds(1) {
        nothing_lost(&format!("evicted, round {round}"), &evicted(&layer).await);
    }
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_rolls_under_load_and_nothing_is_lost() {
    let (namespace, layer) = TestNamespace::with_layer("gate-roll").await;
    memory_rolls(&layer).await;
    // It is not left: to roll it back takes longer than to make another.
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_no_redis_stops_at_one_node_and_recovers_alone_when_it_is_reverted() {
    let (namespace, layer) = TestNamespace::with_layer("gate-reverted").await;
    set_and_reverted(
        &layer,
        "an image that is no Redis",
        json!({"engine": {"image": "localhost/not-redis:1"}}),
        json!({"engine": {"image": engine()}}),
        "neither Redis nor Valkey",
    )
    .await;
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_deleted_are_as_they_were_in_10_s_and_no_pod_restarts() {
    let (namespace, layer) = TestNamespace::with_layer("gate-objects").await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let before = children(&layer).await;
    for child in ["service/web-redis-1", "secret/web-redis-system", "poddisruptionbudget/web-redis"] {
        assert!(before.contains_key(child), "{child}: {:?}", before.keys());
        kubectl(&["-n", &namespace.name, "delete", child, "--wait=false"]);
        println!("{child}: as it was after {:?}", are_mended(&layer, &before).await);
    }
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "no pod may restart");
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_although_no_operator_leads() {
    services_follow_without_a_leader("gate-nobody-leads", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_store_becomes_ready_with_a_layer_of_its_own_and_its_binding_works() {
    let namespace = TestNamespace::create("gate-session-smallest").await;
    let began = Instant::now();
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m"})).await;
    store.ready().await;
    println!("Ready {:?} after its creation", began.elapsed());
    let layer = store.layer().await;
    assert_eq!(layer.identity.name, "web-sessions");
    let secrets: Api<Secret> = layer.api();
    assert!(secrets.get_opt("web-sessions-redis-app").await.unwrap().is_none(), "nobody has a user for all keys");
    let binding = store.binding().await.unwrap();
    assert_eq!((binding["prefix"].as_str(), binding["wait-replicas"].as_str()), ("web:", "1"));
    assert_eq!(binding["username"], "ss.gate-session-smallest.web");

    let mut connection = store.connect().await.expect("the binding leads to the primary");
    let expires: i64 =
        run(&mut connection, call("redoubt_session_create", "web:{t}s:1", &["ada", "name", "Ada"])).await.unwrap();
    assert!(expires > 0);
    let found: redis::Value = run(&mut connection, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap();
    assert!(format!("{found:?}").contains("Ada"), "{found:?}");
    let ended: i64 = run(&mut connection, call("redoubt_session_revoke", "web:{t}s:1", &[])).await.unwrap();
    assert_eq!(ended, 1);
    let confirmed: i64 = run(&mut connection, redis::cmd("WAIT").arg(1).arg(1_000).clone()).await.unwrap();
    assert!(confirmed >= 1);
    let found: redis::Value = run(&mut connection, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap();
    assert_eq!(found, redis::Value::Nil);

    // At rest nothing is written, and the status is what the servers prove.
    let mut seen = store.api().get("web").await.unwrap();
    assert_eq!(seen.status.as_ref().unwrap().functions.as_ref().unwrap().generation, 1);
    let (began, mut rests_since) = (Instant::now(), Instant::now());
    // Longer than the layer's slowest pass: nothing must happen, which no condition can announce. On a machine that does much else
    // a server can be late with an answer, which is news; a write without any is none.
    while rests_since.elapsed() < Duration::from_secs(10) {
        let now = store.api().get("web").await.unwrap();
        if now.resource_version() != seen.resource_version() {
            let [before, after] = [&seen, &now].map(|store| serde_json::to_value(&store.status).unwrap());
            assert_ne!(before, after, "a write that says nothing new");
            println!("it does not rest yet: {before} became {after}");
            assert!(began.elapsed() < SOON, "it does not rest");
            (seen, rests_since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    store.api().delete("web", &DeleteParams::default()).await.unwrap();
    let layers: Api<DataLayer> = layer.api();
    eventually("the layer goes with its store", SOON, async || layers.get_opt("web-sessions").await.unwrap().is_none())
        .await;
    namespace.delete().await;
}
