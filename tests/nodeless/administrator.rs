//! The administrator's user of a layer: it comes and goes with its field, and restarts nothing.

use k8s_openapi::api::core::v1::Secret;
use redis::cmd;
use redoubt::model::NodeKind;
use redoubt::redis::{Class, Connection, Endpoint};
use serde_json::{Value, json};

use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

/// The password that the Secret shows, if there is one.
async fn password(layer: &Layer) -> Option<String> {
    let secret = layer.api::<Secret>().get_opt("web-redis-admin").await.unwrap()?;
    let text = |field: &str| String::from_utf8(secret.data.as_ref()?.get(field)?.0.clone()).ok();
    assert_eq!(text("username").as_deref(), Some("admin"));
    text("password")
}

/// Every server as `admin`.
async fn servers(layer: &Layer, password: &str) -> Vec<(NodeKind, Endpoint)> {
    let as_admin = |endpoint: Endpoint| Endpoint {
        username: "admin".to_owned(),
        password: redoubt::redis::Secret::new(password),
        ..endpoint
    };
    layer.endpoints().await.into_iter().map(|(node, endpoint)| (node.kind, as_admin(endpoint))).collect()
}

async fn access(layer: &Layer, administrator: Value) {
    layer.change(json!({"access": {"administrator": administrator}})).await;
}

fn is_denied(answer: &redoubt::redis::Result<redis::Value>) -> bool {
    answer.as_ref().is_err_and(|error| error.class() == Class::Denied)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_comes_and_goes_with_its_field_and_nothing_restarts() {
    let namespace = TestNamespace::create("nl-admin").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("key").await);
    assert_eq!(password(&layer).await, None, "only who asks for it has one");
    let pods = layer.pod_uids().await;
    access(&layer, json!("Diagnostics")).await;
    eventually("its Secret is there", SOON, async || password(&layer).await.is_some()).await;
    let secret = password(&layer).await.unwrap();
    let may = async |kind: NodeKind, words: &[&str]| {
        let mut all = true;
        for (_, endpoint) in servers(&layer, &secret).await.into_iter().filter(|(of, _)| *of == kind) {
            let Ok(connection) = Connection::open(&endpoint).await else { return false };
            all &= !is_denied(&connection.query(cmd(words[0]).arg(&words[1..])).await);
        }
        all
    };
    eventually("it may look at every data node", SOON, async || may(NodeKind::Data, &["SLOWLOG", "GET", "1"]).await)
        .await;
    eventually("it may ask every Sentinel", SOON, async || may(NodeKind::Sentinel, &["SENTINEL", "MASTERS"]).await)
        .await;
    assert!(may(NodeKind::Data, &["MEMORY", "USAGE", "key"]).await);
    for words in [&["GET", "key"][..], &["SET", "key", "other"], &["CONFIG", "GET", "masterauth"], &["MONITOR"]] {
        assert!(!may(NodeKind::Data, words).await, "{words:?}");
    }
    access(&layer, json!("Full")).await;
    eventually("it may read", SOON, async || may(NodeKind::Data, &["GET", "key"]).await).await;
    assert!(!may(NodeKind::Data, &["CONFIG", "GET", "masterauth"]).await);
    assert!(!may(NodeKind::Data, &["REPLICAOF", "NO", "ONE"]).await);
    assert_eq!(password(&layer).await.as_deref(), Some(secret.as_str()), "more rights, the same password");
    layer.ready().await;
    let (_, endpoint) = servers(&layer, &secret).await.remove(0);
    let held = Connection::open(&endpoint).await.unwrap();
    access(&layer, Value::Null).await;
    eventually("the Secret is gone", SOON, async || password(&layer).await.is_none()).await;
    eventually("its connections are ended", SOON, async || held.query::<String>(&cmd("PING")).await.is_err()).await;
    for (_, endpoint) in servers(&layer, &secret).await {
        eventually("the login is refused", SOON, async || Connection::open(&endpoint).await.is_err()).await;
    }
    assert_eq!(layer.pod_uids().await, pods, "nothing restarts");
    namespace.delete().await;
}
