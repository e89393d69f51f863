//! Volumes that are full.

use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::{Connection, Endpoint};
use serde_json::json;

use crate::commands::kubectl;
use crate::test_namespace::{SOON, TestNamespace, eventually};

/// What a write to a node's server is answered, by the word that begins an error.
async fn answer_to_write(endpoint: &Endpoint, key: &str) -> Option<String> {
    let connection = Connection::open(endpoint).await.ok()?;
    // Larger than what a file system keeps in reserve.
    let answer = connection.query::<()>(redis::cmd("SET").arg(key).arg("x".repeat(1 << 18))).await;
    match answer {
        Ok(()) => Some("OK".to_owned()),
        Err(error) => error.server_text(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_volumes_stop_writes_and_nothing_else_until_there_is_room() {
    let namespace = TestNamespace::create("e2e-full").await;
    let volume = json!({"memory": {"limit": "128Mi"}, "persistence": {"volume": {"size": "128Mi"}}});
    let layer = namespace.layer("web", volume).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let primary = layer.wait_until_in_sync().await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let of_primary = layer.endpoints().await.remove(&primary).unwrap();
    for node in (0..3).map(NodeId::data) {
        // Until there is no room: `dd` says so by its exit code.
        let script = "dd if=/dev/zero of=/data/ballast bs=64k 2> /dev/null || true";
        kubectl(&["-n", &namespace.name, "exec", &layer.pod(node), "--", "sh", "-c", script]);
    }
    let mut number = 0;
    eventually("writes are refused", SOON, async || {
        number += 1;
        let answer = answer_to_write(&of_primary, &format!("large:{number}")).await.unwrap_or_default();
        answer.contains("MISCONF")
    })
    .await;
    eventually("the layer says why", SOON, async || {
        let persisted = layer.condition("Persisted").await;
        let degraded = layer.condition("Degraded").await;
        persisted.is_some_and(|(status, _, message)| status == "False" && message.contains(&primary.to_string()))
            && degraded.is_some_and(|(status, _, message)| status == "True" && message.contains("cannot write"))
    })
    .await;
    println!("full: {:?} {:?}", layer.condition("Persisted").await, layer.condition("Degraded").await);
    let watched = std::time::Instant::now();
    while watched.elapsed() < Duration::from_secs(10) {
        // Without an answer to the first, a client asks again: on a machine that does much else one can be late.
        eventually("reads go on", Duration::from_secs(3), async || layer.get("kept").await.as_deref() == Some("kept"))
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(layer.primary().await, Some(primary), "nobody else has more room");
    for node in (0..3).map(NodeId::data) {
        kubectl(&["-n", &namespace.name, "exec", &layer.pod(node), "--", "rm", "/data/ballast"]);
    }
    let resumed = eventually("writes go on", SOON, async || layer.set("after").await).await;
    println!("writable {resumed:?} after there was room");
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "nothing was restarted");
    namespace.delete().await;
}
