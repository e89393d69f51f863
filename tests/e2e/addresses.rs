//! Addresses of nodes that somebody else has got.

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use redoubt::model::{Address, NodeId};
use redoubt::redis::{Connection, sentinel};
use serde_json::json;

use crate::commands::kubectl;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

/// Deletes a node's Service and gives its address to a Service of somebody else; the address.
async fn take_the_address_of(layer: &Layer, node: NodeId) -> Address {
    let services: Api<Service> = layer.api();
    let name = format!("{}-{node}", layer.identity.name);
    let service = services.get(&name).await.unwrap();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    kubectl(&["-n", &layer.identity.namespace, "delete", "service", &name]);
    let theirs = json!({
        "metadata": {"name": format!("theirs-{node}")},
        "spec": {"clusterIP": address, "ports": [{"port": 80}], "selector": {"app": "theirs"}},
    });
    services.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    Address(address)
}

/// Whether any Sentinel still knows a node by one of these.
async fn are_remembered(layer: &Layer, old: &BTreeSet<Address>) -> bool {
    for endpoint in layer.sentinels().await {
        let Ok(connection) = Connection::open(&endpoint).await else { return true };
        let Ok(Some(master)) = sentinel::master(&connection, &layer.identity.master_name()).await else { return true };
        let mut known = master.replicas.keys().chain(master.other_sentinels.values());
        if old.contains(&master.address) || known.any(|address| old.contains(address)) {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_addresses_were_taken_get_others_live_and_lose_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-addresses").await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let mut old = BTreeSet::new();
    let began = Instant::now();
    let verdict = layer
        .under_load(async |layer: &Layer, primary| {
            // Else the operator takes the addresses again at once, as it should.
            layer.change(json!({"paused": true})).await;
            eventually("it is paused", SOON, async || {
                layer.condition("Progressing").await.is_some_and(|(_, reason, _)| reason == "Paused")
            })
            .await;
            // So the next primary is one that changed its own.
            for node in (0..3).map(NodeId::data).chain([NodeId::sentinel(1)]) {
                old.insert(take_the_address_of(layer, node).await);
            }
            layer.change(json!({"paused": false})).await;
            eventually("the primary has handed over", SOON, async || {
                layer.primary_in_sync().await.is_some_and(|now| now != primary)
            })
            .await;
        })
        .await;
    println!(
        "{} acknowledged, gap {:.2?}, whole {:.1?} later",
        verdict.acknowledged,
        verdict.longest_gap,
        began.elapsed()
    );
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
    let served_by = layer.primary_in_sync().await.unwrap();
    // One Sentinel after the other, 30 s apart.
    let forgotten =
        eventually("nobody remembers the old addresses", SOON, async || !are_remembered(&layer, &old).await).await;
    println!("forgotten after {forgotten:.1?}");
    layer.ready().await;
    assert_eq!(layer.primary_in_sync().await, Some(served_by), "it stays primary all the while");
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "no pod may restart");
    namespace.leave(layer).await;
}
