//! From `kubectl apply` to a layer that is proven: what its status says is asked of the servers.

use redoubt::model::NodeId;
use serde_json::json;

use crate::commands::kubectl;
use crate::place;
use crate::plane::plane;
use crate::test_namespace::{ENGINES, SOON, TestNamespace, eventually};
use crate::truth::{
    columns_and_scale_are_right, services_lead_where_they_should, status_is_true, the_binding_is_enough,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_is_ready_on_each_engine_and_its_status_is_true_of_the_servers() {
    // Those of which there is a program.
    for (name, image) in ENGINES.into_iter().filter(|(_, image)| plane().kubelet.engine(image).is_some()) {
        let namespace = TestNamespace::create(&format!("nl-creation-{name}")).await;
        let layer = namespace.layer("web", json!({"engine": {"image": image}})).await;
        println!("{name}: Ready after {:.2?}", layer.ready().await);
        status_is_true(&layer).await;
        let primary = layer.wait_until_in_sync().await;
        assert_eq!(primary, NodeId::data(0), "of empty nodes the first begins");
        columns_and_scale_are_right(&layer, primary).await;
        services_lead_where_they_should(&layer).await;
        the_binding_is_enough(&layer).await;
        namespace.delete().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_layer_is_ready_and_keeps_its_data() {
    let namespace = TestNamespace::create("nl-standalone").await;
    let layer = namespace.layer("dev", json!({"mode": "Standalone"})).await;
    layer.ready().await;
    eventually("it takes a write", SOON, async || layer.set("kept").await).await;
    let old = layer.pod_uids().await;
    layer.delete_pod(NodeId::data(0)).await;
    eventually("the key is there again", SOON, async || {
        layer.pod_uids().await.is_disjoint(&old) && layer.get("kept").await.as_deref() == Some("kept")
    })
    .await;
    // One that keeps nothing comes back empty, and with its functions.
    let cache = namespace.layer("cache", json!({"mode": "Standalone", "purpose": "Cache"})).await;
    cache.ready().await;
    assert!(cache.set("gone").await);
    cache.kill_engine(NodeId::data(0)).await;
    eventually("it is empty and has its functions", SOON, async || {
        let digest = cache.functions(NodeId::data(0)).await;
        let expected = &redoubt::dataplane::built_in_libraries()[0].digest;
        cache.get("gone").await.is_none() && digest.as_ref() == Some(expected)
    })
    .await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_layers_in_one_namespace_never_mix_though_one_is_created_again() {
    let namespace = TestNamespace::create("nl-two-layers").await;
    let (left, right) = (namespace.layer("left", json!({})).await, namespace.layer("right", json!({})).await);
    left.ready().await;
    right.ready().await;
    assert!(left.set("mine").await && right.set("theirs").await);
    kubectl(&["-n", &namespace.name, "delete", "datalayer", "left", "--wait=true"]);
    let left = namespace.layer("left", json!({})).await;
    left.ready().await;
    right.ready().await;
    assert_eq!(left.get("mine").await.as_deref(), Some("mine"), "the volumes were to be adopted");
    assert_eq!(left.get("theirs").await, None);
    assert_eq!(right.get("theirs").await.as_deref(), Some("theirs"));
    assert_eq!(right.get("mine").await, None);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_leaves_nothing_but_the_volumes_and_a_successor_adopts_them_with_the_data() {
    let namespace = TestNamespace::create("nl-deletion").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let everything = || {
        let kinds =
            "statefulsets,pods,services,secrets,poddisruptionbudgets,configmaps,serviceaccounts,roles,rolebindings";
        let all = kubectl(&["-n", &namespace.name, "get", kinds, "-o", "name"]);
        // Kubernetes puts these two into each namespace.
        let of_kubernetes = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
        all.lines().filter(|line| !of_kubernetes.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    // In the foreground, as tools of GitOps delete, its objects go before it does, and none may be made again meanwhile.
    for how in ["background", "foreground"] {
        kubectl(&["-n", &namespace.name, "delete", "datalayer", "web", "--wait=true", &format!("--cascade={how}")]);
        eventually("nothing is left", SOON, async || everything().is_empty()).await;
        let claims = kubectl(&["-n", &namespace.name, "get", "persistentvolumeclaims", "-o", "name"]);
        assert_eq!(claims.lines().count(), 3, "{how}: {claims}");
        let layer = namespace.layer("web", json!({})).await;
        layer.ready().await;
        assert_eq!(layer.get("kept").await.as_deref(), Some("kept"), "{how}");
    }
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_without_its_operator_serves_while_its_primary_moves_twice() {
    let (namespace, layer) = TestNamespace::with_layer("nl-absent").await;
    assert!(layer.set("kept").await);
    place::stop_operator(&namespace.name);
    for _ in 0..2 {
        let old = layer.wait_until_in_sync().await;
        let process = layer.serving().await;
        layer.kill_engine(old).await;
        layer.has_a_new_primary(process).await;
        layer.wait_until_in_sync().await;
        eventually("it takes a write", SOON, async || layer.set("again").await).await;
    }
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    place::start_operator(&namespace.name);
    // Its status is what the operator saw before it left, until it has looked again.
    eventually("status names the primary of now", SOON, async || {
        let named = layer.object().await.status.and_then(|status| status.primary);
        layer.primary_in_sync().await.is_some_and(|primary| named == Some(layer.pod_owner(primary)))
    })
    .await;
    layer.ready().await;
    status_is_true(&layer).await;
    namespace.leave(layer).await;
}
