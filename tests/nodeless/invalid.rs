//! Specifications that are wrong or cannot be read: a layer that runs goes on, and no other layer notices.

use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use serde_json::json;

use crate::commands::{kubectl, try_kubectl};
use crate::disturbances::FOLLOWED;
use crate::place;
use crate::store::{Store, call, run};
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

/// Opens the definition for a moment, as one of an older version would be: what is stored then may be such that we cannot
/// read it. [`crate::definitions::define`] closes it. Meanwhile no other claim may run.
fn open_the_definition(of: &str) {
    let open = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    kubectl(&["patch", "customresourcedefinition", of, "--type=json", "-p", open]);
}

async fn an_event_says_unreadable(namespace: &str) {
    eventually("an event says what cannot be read", SOON, async || {
        let events = kubectl(&["-n", namespace, "get", "events", "-o", "jsonpath={.items[*].reason}"]);
        events.contains("Unreadable")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_stored_form_cannot_be_read_stops_no_other() {
    let namespace = TestNamespace::create_with("nl-unreadable", place::operator_of_all().await).await;
    open_the_definition("datalayers.redoubt.dev");
    let unreadable = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer",
        "metadata": {"name": "broken"}, "spec": {"mode": "Galactic"}});
    let layers: Api<DynamicObject> = Api::namespaced_with(
        namespace.client.clone(),
        &namespace.name,
        &ApiResource::erase::<redoubt::api::data_layer::DataLayer>(&()),
    );
    let stored = eventually("the object is stored", SOON, async || {
        layers
            .create(&kube::api::PostParams::default(), &serde_json::from_value(unreadable.clone()).unwrap())
            .await
            .is_ok()
    })
    .await;
    println!("stored after {stored:?}");
    crate::definitions::define(&namespace.client).await;
    let good = namespace.layer("good", json!({})).await;
    good.ready().await;
    an_event_says_unreadable(&namespace.name).await;
    kubectl(&["-n", &namespace.name, "delete", "datalayer", "broken"]);
    namespace.delete().await;
}

/// The primary moves, its Services follow, and what was written is there.
async fn goes_on(layer: &Layer, key: &str) {
    assert!(layer.set(key).await);
    let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
    layer.kill_engine(primary).await;
    let served_by = layer.has_a_new_primary(served).await;
    let followed = layer.services_follow(served_by, FOLLOWED).await;
    println!("{key}: the Services followed after {followed:?}");
    layer.wait_until_in_sync().await;
    assert_eq!(layer.get(key).await.as_deref(), Some(key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_layer_whose_specification_becomes_wrong_or_unreadable_goes_on_as_it_was() {
    let namespace = TestNamespace::create_with("nl-invalid", place::operator_of_all().await).await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    layer.change(json!({"memory": {"limit": "20Mi"}})).await;
    eventually("the minimum is told, and why", SOON, async || {
        layer.condition("Accepted").await.is_some_and(|(status, _, message)| {
            status == "False" && message.contains("spec.memory.limit") && message.contains("73Mi are needed")
        })
    })
    .await;
    goes_on(&layer, "invalid").await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods.clone(), restarts.clone()));
    layer.change(json!({"memory": null})).await;
    layer.ready().await;
    open_the_definition("datalayers.redoubt.dev");
    let stored = || {
        let patch = r#"{"spec": {"purpose": "Galactic"}}"#;
        try_kubectl(&["-n", &namespace.name, "patch", "datalayer", "web", "--type=merge", "-p", patch]).is_ok()
    };
    eventually("what cannot be read is stored", SOON, async || stored()).await;
    crate::definitions::define(&namespace.client).await;
    an_event_says_unreadable(&namespace.name).await;
    goes_on(&layer, "unreadable").await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts));
    kubectl(&[
        "-n",
        &namespace.name,
        "patch",
        "datalayer",
        "web",
        "--type=merge",
        "-p",
        r#"{"spec": {"purpose": null}}"#,
    ]);
    layer.ready().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_goes_on_as_it_was_and_the_others_of_its_layer_take_their_changes() {
    let namespace = TestNamespace::create_with("nl-store-unreadable", place::operator_of_all().await).await;
    let layer = namespace.layer("shared", json!({})).await;
    let of = |name: &str| json!({"idleTimeout": "30m", "layer": {"name": "shared"}, "keyPrefix": format!("{name}:")});
    let (broken, good) =
        (Store::create(&namespace, "broken", of("broken")).await, Store::create(&namespace, "good", of("good")).await);
    broken.ready().await;
    good.ready().await;
    let mut held = broken.connected().await;
    let stored = || {
        let patch = r#"{"spec": {"maxPerUser": 2, "onExceed": "Galactic"}}"#;
        try_kubectl(&["-n", &namespace.name, "patch", "sessionstore", "broken", "--type=merge", "-p", patch]).is_ok()
    };
    open_the_definition("sessionstores.redoubt.dev");
    eventually("what cannot be read is stored", SOON, async || stored()).await;
    crate::definitions::define(&namespace.client).await;
    an_event_says_unreadable(&namespace.name).await;
    good.change(json!({"idleTimeout": "5m"})).await;
    good.ready().await;
    let mut other = good.connected().await;
    let create = |key: &str| call("redoubt_session_create", key, &["ada"]);
    let lasts = |expires: i64| i128::from(expires) - std::time::UNIX_EPOCH.elapsed().unwrap().as_millis().cast_signed();
    let changed = lasts(run(&mut other, create("good:{t}s:1")).await.unwrap());
    assert!((1..=300_000).contains(&changed), "{changed} ms: its changed policy is in force");
    let kept = lasts(run(&mut held, create("broken:{t}s:1")).await.unwrap());
    assert!(kept > 1_500_000, "{kept} ms: its policy stays in force");
    let patch = r#"{"spec": {"maxPerUser": null, "onExceed": null}}"#;
    kubectl(&["-n", &namespace.name, "patch", "sessionstore", "broken", "--type=merge", "-p", patch]);
    broken.ready().await;
    layer.ready().await;
    namespace.delete().await;
}
