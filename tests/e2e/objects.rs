//! Objects of a layer that somebody deletes or edits, that somebody else has, or that cannot be read.

use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use serde_json::json;

use crate::stage::{Layer, SOON, Stage, cluster, eventually, kubectl};

/// A child object that was deleted or edited is there again, as it should be, within this.
const MENDED_WITHIN: Duration = Duration::from_secs(10);
/// The operator's service account.
const OPERATOR: &str = "redoubt-system:redoubt-operator";

fn children(layer: &Layer) -> Vec<String> {
    let namespace = &layer.identity.namespace;
    let selector = format!("redoubt.dev/layer={}", layer.identity.name);
    let kinds = "services,secrets,poddisruptionbudgets";
    kubectl(&["-n", namespace, "get", kinds, "-l", &selector, "-o", "name"]).lines().map(str::to_owned).collect()
}

/// What the operator wrote in the layer's namespace so far.
fn writes(layer: &Layer) -> Vec<String> {
    let place = format!("/namespaces/{}/", layer.identity.namespace);
    cluster(&["writes", OPERATOR]).lines().filter(|line| line.contains(&place)).map(str::to_owned).collect()
}

fn uid_of(layer: &Layer, object: &str) -> String {
    kubectl(&["-n", &layer.identity.namespace, "get", object, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_child_that_is_deleted_comes_back_in_10_s_and_no_pod_restarts() {
    let stage = Stage::set("e2e-deleted").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    let (pods, password) = (layer.pod_uids().await, layer.binding().await["password"].clone());
    let addresses = layer.endpoints().await;
    let children = children(&layer);
    assert!(children.len() >= 13, "{children:?}");
    let mut slowest = Duration::ZERO;
    for child in children {
        let old = uid_of(&layer, &child);
        kubectl(&["-n", &stage.namespace, "delete", &child, "--wait=false"]);
        let back = eventually(&format!("{child} is back"), MENDED_WITHIN, async || {
            let now = uid_of(&layer, &child);
            !now.is_empty() && now != old
        })
        .await;
        slowest = slowest.max(back);
    }
    println!("deleted children: the slowest was back after {slowest:?}");
    layer.ready().await;
    assert_eq!(
        layer.binding().await["password"],
        password,
        "a Secret that was deleted comes back with the same password"
    );
    assert_eq!(layer.endpoints().await, addresses, "a Service that was deleted comes back with its address");
    assert_eq!(layer.pod_uids().await, pods, "no pod may be replaced");
    let restarts = kubectl(&[
        "-n",
        &stage.namespace,
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ]);
    assert!(restarts.split(' ').all(|count| count == "0"), "{restarts}");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_child_that_is_edited_is_as_declared_again_in_10_s() {
    let stage = Stage::set("e2e-edited").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    let pods = layer.pod_uids().await;
    let edits = [
        (
            "service/web-redis",
            r#"{"spec":{"selector":{"redoubt.dev/layer":"nobody"}}}"#,
            "{.spec.selector.redoubt\\.dev/layer}",
            "web",
        ),
        (
            "service/web-redis-replicas",
            r#"{"spec":{"ports":[{"port":6379,"name":"redis","targetPort":1}]}}"#,
            "{.spec.ports[0].targetPort}",
            "6379",
        ),
        (
            "service/web-redis-1",
            r#"{"metadata":{"labels":{"redoubt.dev/node":"redis-7"}}}"#,
            "{.metadata.labels.redoubt\\.dev/node}",
            "redis-1",
        ),
        ("poddisruptionbudget/web-redis", r#"{"spec":{"maxUnavailable":3}}"#, "{.spec.maxUnavailable}", "1"),
        ("secret/web-redis-app", r#"{"stringData":{"host":"elsewhere"}}"#, "{.data.port}", "NjM3OQ=="),
        ("statefulset/web-redis-2", r#"{"spec":{"replicas":0}}"#, "{.spec.replicas}", "1"),
    ];
    for (object, patch, path, expected) in edits {
        let edited = kubectl(&["-n", &stage.namespace, "get", object, "-o", "jsonpath={.metadata.resourceVersion}"]);
        kubectl(&["-n", &stage.namespace, "patch", object, "--type=merge", "-p", patch]);
        let path = format!("jsonpath={path}");
        eventually(&format!("{object} is mended"), MENDED_WITHIN, async || {
            let now = kubectl(&["-n", &stage.namespace, "get", object, "-o", "jsonpath={.metadata.resourceVersion}"]);
            now != edited && kubectl(&["-n", &stage.namespace, "get", object, "-o", &path]) == expected
        })
        .await;
    }
    eventually("the binding's host is right again", MENDED_WITHIN, async || {
        layer.binding().await["host"].starts_with("web-redis.")
    })
    .await;
    layer.ready().await;
    let now = layer.pod_uids().await;
    // The StatefulSet that was scaled to nothing has lost its pod; all others are the same.
    assert!(pods.intersection(&now).count() >= pods.len() - 1, "{pods:?} {now:?}");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_on_a_server_by_hand_is_mended_and_read_back() {
    use redoubt::redis::{Connection, server};
    let stage = Stage::set("e2e-drift").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    for node in [redoubt::model::NodeId::data(0), redoubt::model::NodeId::data(1)] {
        let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
        server::config_set(&connection, "maxmemory-policy", "allkeys-lru").await.unwrap();
        server::config_set(&connection, "maxmemory", "0").await.unwrap();
        server::acl_set_user(&connection, "intruder", &["on".into(), "nopass".into(), "+@all".into(), "~*".into()])
            .await
            .unwrap();
        if layer.primary().await == Some(node) {
            connection.query::<()>(redis::cmd("FUNCTION").arg("DELETE").arg("redoubt")).await.unwrap();
        }
    }
    eventually("everything is mended", MENDED_WITHIN, async || {
        let mut mended = true;
        for node in [redoubt::model::NodeId::data(0), redoubt::model::NodeId::data(1)] {
            let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
            let live = server::config_get(&connection, &["maxmemory", "maxmemory-policy"]).await.unwrap();
            let users = server::acl_list(&connection).await.unwrap();
            let digest = connection.query::<String>(redis::cmd("FCALL_RO").arg("redoubt_digest").arg(0)).await;
            mended &= live["maxmemory"] != "0"
                && live["maxmemory-policy"] == "noeviction"
                && !users.iter().any(|user| user.contains("intruder"))
                && digest.is_ok();
        }
        mended
    })
    .await;
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_our_name_that_is_not_ours_is_left_alone_and_told() {
    let stage = Stage::set("e2e-name-taken").await;
    kubectl(&["-n", &stage.namespace, "create", "service", "clusterip", "web-redis", "--tcp=80"]);
    let layer = stage.layer("web", json!({})).await;
    eventually("the layer says whose name is taken", SOON, async || {
        layer.condition("Accepted").await.is_some_and(|(status, reason, message)| {
            status == "False" && reason == "NameTaken" && message.contains("web-redis")
        })
    })
    .await;
    let port =
        kubectl(&["-n", &stage.namespace, "get", "service", "web-redis", "-o", "jsonpath={.spec.ports[0].port}"]);
    assert_eq!(port, "80");
    kubectl(&["-n", &stage.namespace, "delete", "service", "web-redis"]);
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_stored_form_cannot_be_read_stops_no_other() {
    let stage = Stage::set("e2e-unreadable").await;
    // The definition is opened for a moment, as one of an older version would be: an object is stored that we cannot read.
    let open = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    kubectl(&["patch", "customresourcedefinition", "datalayers.redoubt.dev", "--type=json", "-p", open]);
    let unreadable = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer",
        "metadata": {"name": "broken"}, "spec": {"mode": "Galactic"}});
    let layers: Api<DynamicObject> = Api::namespaced_with(
        stage.client.clone(),
        &stage.namespace,
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
    crate::client().await;
    let good = stage.layer("good", json!({})).await;
    good.ready().await;
    eventually("an event says what cannot be read", SOON, async || {
        let events = kubectl(&["-n", &stage.namespace, "get", "events", "-o", "jsonpath={.items[*].reason}"]);
        events.contains("Unreadable")
    })
    .await;
    kubectl(&["-n", &stage.namespace, "delete", "datalayer", "broken"]);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_layer_is_left_alone_and_is_mended_when_it_goes_on() {
    let stage = Stage::set("e2e-paused").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    layer.change(json!({"paused": true})).await;
    eventually("it says that it is paused", SOON, async || {
        layer.condition("Progressing").await.is_some_and(|(_, _, message)| message.to_lowercase().contains("paused"))
    })
    .await;
    let before = writes(&layer);
    kubectl(&["-n", &stage.namespace, "delete", "service", "web-redis-replicas"]);
    let watched = Instant::now();
    // Longer than anything takes to come back: nothing must happen, which no condition can announce.
    while watched.elapsed() < MENDED_WITHIN {
        assert_eq!(uid_of(&layer, "service/web-redis-replicas"), "");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(writes(&layer), before);
    layer.change(json!({"paused": false})).await;
    eventually("it is back", MENDED_WITHIN, async || !uid_of(&layer, "service/web-redis-replicas").is_empty()).await;
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_layer_costs_no_write() {
    let stage = Stage::set("e2e-idle").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    // What follows Ready at once: the record that the layer was initialised.
    let mut last = (0, Instant::now());
    eventually("the last write is a while ago", SOON, async || {
        let now = writes(&layer).len();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(6)
    })
    .await;
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(30) {
        let now = writes(&layer);
        assert_eq!(now.len(), last.0, "{:?}", now.last());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stage.strike().await;
}
