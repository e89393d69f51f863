//! From `kubectl apply` to a layer that is proven on each engine: what its status says is asked of the servers.

use std::collections::BTreeMap;

use serde_json::json;

use crate::test_namespace::{ENGINES, Layer, REDIS_7, TestNamespace};
use crate::truth::{
    columns_and_scale_are_right, services_lead_where_they_should, status_is_true, the_binding_is_enough,
};

/// No Kubernetes node has two pods of a kind; there are three nodes.
async fn pods_are_spread(layer: &Layer) {
    for component in ["redis", "sentinel"] {
        let pods = layer.pods().await;
        let of_kind =
            pods.iter().filter(|(name, _)| name.starts_with(&format!("{}-{component}-", layer.identity.name)));
        let places: BTreeMap<_, _> =
            of_kind.map(|(name, pod)| (pod.spec.as_ref().unwrap().node_name.clone().unwrap(), name)).collect();
        assert_eq!(places.len(), 3, "{component}: {places:?}");
    }
}

/// A new layer with everything that is promised of one that is Ready.
pub async fn becomes_ready(namespace: &str, engine: &str) -> (TestNamespace, Layer) {
    let namespace = TestNamespace::create(namespace).await;
    let layer = namespace.layer("web", json!({"engine": {"image": engine}})).await;
    println!("{engine}: Ready {:?} after it was applied", layer.ready().await);
    status_is_true(&layer).await;
    pods_are_spread(&layer).await;
    columns_and_scale_are_right(&layer, layer.wait_until_in_sync().await).await;
    services_lead_where_they_should(&layer).await;
    the_binding_is_enough(&layer).await;
    (namespace, layer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_on_redis_7_is_ready_and_its_status_is_true_of_the_servers() {
    becomes_ready("e2e-ready-redis-7", REDIS_7).await.0.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_on_redis_8_is_ready_and_its_status_is_true_of_the_servers() {
    becomes_ready("e2e-ready-redis-8", ENGINES[1].1).await.0.delete().await;
}
