//! From `kubectl apply` to a layer that is proven: what its status says is asked of the servers.

use std::collections::BTreeMap;

use redoubt::model::{NodeId, NodeKind, Role};
use redoubt::redis::{Connection, Endpoint, Secret, server};
use serde_json::json;

use crate::commands::kubectl;
use crate::place::scale_operator;
use crate::stage::{ENGINES, Layer, REDIS_7, SOON, Stage, eventually};

/// Status is true: roles, settings and functions are asked of every server.
async fn status_is_true(layer: &Layer) {
    let object = layer.object().await;
    let status = object.status.unwrap();
    let primary = layer.whole().await.expect("Ready means whole");
    assert_eq!(status.primary, Some(layer.pod_owner(primary)));
    let memory = status.memory.unwrap();
    let of_clients = memory.connections + memory.client_buffers + memory.largest_command + memory.replica_buffers;
    assert_eq!(memory.limit, memory.maxmemory + of_clients + memory.copy_on_write + memory.fragmentation);
    for (node, endpoint) in layer.endpoints().await {
        let named = status.nodes.iter().find(|known| known.name == layer.pod_owner(node)).unwrap();
        assert_eq!(named.state.as_deref(), Some("InSync"), "{node}");
        let nobody = Endpoint { username: "default".to_owned(), password: Secret::new("guess"), ..endpoint.clone() };
        assert!(Connection::open(&nobody).await.is_err(), "the default user is on at {node}");
        if node.kind == NodeKind::Data {
            let expected = if node == primary { "Primary" } else { "Replica" };
            assert_eq!(named.role.as_deref(), Some(expected), "{node}");
            settings_are_live(layer, node, memory.maxmemory).await;
            let connection = Connection::open(&endpoint).await.unwrap();
            let digest: String = connection.query(redis::cmd("FCALL_RO").arg("redoubt_digest").arg(0)).await.unwrap();
            assert_eq!(digest, redoubt::dataplane::built_in_libraries()[0].digest, "{node}");
        }
    }
}

async fn settings_are_live(layer: &Layer, node: NodeId, maxmemory: i64) {
    let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
    let names = ["maxmemory", "maxmemory-policy", "appendonly", "min-replicas-to-write", "lazyfree-lazy-expire"];
    let live = server::config_get(&connection, &names).await.unwrap();
    let expected = [maxmemory.to_string(), "noeviction".into(), "yes".into(), "1".into(), "yes".into()];
    for (name, value) in names.iter().zip(expected) {
        assert_eq!(live.get(*name), Some(&value), "{name} on {node}");
    }
}

/// The role of whoever answers at a Service of the layer.
async fn role_at(layer: &Layer, service: &str) -> Option<Role> {
    let services: kube::Api<k8s_openapi::api::core::v1::Service> = layer.api();
    let address = services.get(&format!("{}-{service}", layer.identity.name)).await.ok()?.spec?.cluster_ip?;
    let endpoint = Endpoint { address, ..layer.endpoints().await.remove(&NodeId::data(0))? };
    server::replication(&Connection::open(&endpoint).await.ok()?).await.ok()?.role()
}

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

/// What `kubectl get` and `kubectl scale` see.
async fn columns_and_scale_are_right(layer: &Layer, primary: NodeId) {
    let (name, namespace) = (&layer.identity.name, &layer.identity.namespace);
    let table = kubectl(&["-n", namespace, "get", "datalayers"]);
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0], ["NAME", "READY", "PRIMARY", "MEMORY", "MODE", "SINCE"]);
    assert_eq!(cells[1][..5], [name, "True", &layer.pod_owner(primary), "0%", "Sentinel"]);
    assert!(cells[1][5].ends_with(['s', 'm']), "{table}");
    // Kubernetes serves `scale` only where the field is written; what is written is the default.
    layer.change(json!({"replicas": 2})).await;
    layer.ready().await;
    let path = format!("/apis/redoubt.dev/v1alpha1/namespaces/{namespace}/datalayers/{name}/scale");
    let scale: serde_json::Value = serde_json::from_str(&kubectl(&["get", "--raw", &path])).unwrap();
    assert_eq!(scale["status"]["replicas"], 2, "replicas in sync: {scale}");
    let selector = scale["status"]["selector"].as_str().unwrap();
    let selected = kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", "name"]);
    let mut selected: Vec<&str> = selected.lines().collect();
    selected.sort_unstable();
    assert_eq!(selected, (0..3).map(|node| format!("pod/{}", layer.pod(NodeId::data(node)))).collect::<Vec<_>>());
}

async fn becomes_ready(namespace: &str, engine: &str) {
    let stage = Stage::set(namespace).await;
    let layer = stage.layer("web", json!({"engine": {"image": engine}})).await;
    println!("{engine}: Ready {:?} after it was applied", layer.ready().await);
    status_is_true(&layer).await;
    pods_are_spread(&layer).await;
    columns_and_scale_are_right(&layer, layer.heals().await).await;
    eventually("the primary's Service leads to a primary", SOON, async || {
        role_at(&layer, "redis").await == Some(Role::Primary)
    })
    .await;
    eventually("the replicas' Service leads to a replica", SOON, async || {
        role_at(&layer, "redis-replicas").await == Some(Role::Replica)
    })
    .await;
    the_binding_is_enough(&layer).await;
    stage.strike().await;
}

/// The binding alone is enough for a client with Sentinel support, and gives no right that is not the application's.
async fn the_binding_is_enough(layer: &Layer) {
    let binding = layer.binding().await;
    for field in ["type", "provider", "host", "port", "username", "password", "uri", "master-name", "sentinels"] {
        assert!(binding.get(field).is_some_and(|value| !value.is_empty()), "{field} is missing in the binding");
    }
    let primary = layer.primary().await.unwrap();
    let connection = Connection::open(&layer.endpoints().await[&primary]).await.unwrap();
    connection.query::<()>(redis::cmd("SET").arg("greeting").arg("hello")).await.unwrap();
    let refused = connection.query::<()>(redis::cmd("CONFIG").arg("GET").arg("requirepass")).await;
    assert!(refused.is_err(), "the application may read the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_on_redis_7_is_ready_and_its_status_is_true_of_the_servers() {
    becomes_ready("e2e-ready-redis-7", REDIS_7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_on_redis_8_is_ready_and_its_status_is_true_of_the_servers() {
    becomes_ready("e2e-ready-redis-8", ENGINES[1].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimal_layer_on_valkey_8_is_ready_and_its_status_is_true_of_the_servers() {
    becomes_ready("e2e-ready-valkey-8", ENGINES[2].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_layer_is_ready_and_keeps_its_data() {
    let stage = Stage::set("e2e-standalone").await;
    let layer = stage.layer("dev", json!({"mode": "Standalone"})).await;
    layer.ready().await;
    eventually("it takes a write", SOON, async || layer.set("kept").await).await;
    layer.delete_pod(NodeId::data(0)).await;
    eventually("the key is there again", SOON, async || layer.get("kept").await.as_deref() == Some("kept")).await;
    // One that keeps nothing comes back empty, and with its functions.
    let cache = stage.layer("cache", json!({"mode": "Standalone", "purpose": "Cache"})).await;
    cache.ready().await;
    assert!(cache.set("gone").await);
    cache.kill(NodeId::data(0), "redis-server");
    eventually("it is empty and has its functions", SOON, async || {
        let digest = cache.functions(NodeId::data(0)).await;
        let expected = &redoubt::dataplane::built_in_libraries()[0].digest;
        cache.get("gone").await.is_none() && digest.as_ref() == Some(expected)
    })
    .await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_while_it_creates_a_layer_finishes_it_when_it_is_back() {
    let stage = Stage::set("e2e-killed-operator").await;
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        let layer = stage.layer(name, json!({})).await;
        // Somewhere on the way: after the first, the fourth and the seventh object of the layer.
        let objects = 1 + 3 * round;
        let services: kube::Api<k8s_openapi::api::core::v1::Service> = layer.api();
        let label = kube::api::ListParams::default().labels(&format!("redoubt.dev/layer={name}"));
        eventually("the creation has begun", SOON, async || {
            services.list(&label).await.unwrap().items.len() >= objects
        })
        .await;
        kubectl(&[
            "-n",
            "redoubt-system",
            "delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=redoubt-operator",
            "--grace-period=0",
            "--force",
            "--wait=false",
        ]);
        layer.ready().await;
        status_is_true(&layer).await;
    }
    crate::place::operator_is_there();
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_layers_in_one_namespace_never_mix_though_one_is_created_anew() {
    let stage = Stage::set("e2e-two-layers").await;
    let (left, right) = (stage.layer("left", json!({})).await, stage.layer("right", json!({})).await);
    left.ready().await;
    right.ready().await;
    assert!(left.set("mine").await && right.set("theirs").await);
    kubectl(&["-n", &stage.namespace, "delete", "datalayer", "left", "--wait=true"]);
    let left = stage.layer("left", json!({})).await;
    left.ready().await;
    right.ready().await;
    assert_eq!(left.get("mine").await.as_deref(), Some("mine"), "the volumes were to be adopted");
    assert_eq!(left.get("theirs").await, None);
    assert_eq!(right.get("theirs").await.as_deref(), Some("theirs"));
    assert_eq!(right.get("mine").await, None);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_leaves_nothing_but_the_volumes_and_a_successor_adopts_them_with_the_data() {
    let stage = Stage::set("e2e-deletion").await;
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    kubectl(&["-n", &stage.namespace, "delete", "datalayer", "web", "--wait=true"]);
    let everything = || {
        let kinds =
            "statefulsets,pods,services,secrets,poddisruptionbudgets,configmaps,serviceaccounts,roles,rolebindings";
        let all = kubectl(&["-n", &stage.namespace, "get", kinds, "-o", "name"]);
        // Kubernetes puts these two into each namespace.
        let of_kubernetes = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
        all.lines().filter(|line| !of_kubernetes.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("nothing is left", SOON, async || everything().is_empty()).await;
    let claims = kubectl(&["-n", &stage.namespace, "get", "persistentvolumeclaims", "-o", "name"]);
    assert_eq!(claims.lines().count(), 3, "{claims}");
    let layer = stage.layer("web", json!({})).await;
    layer.ready().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_operator_a_layer_serves_and_heals_while_the_primary_moves_twice() {
    let (stage, layer) = Stage::with_layer("e2e-absent").await;
    assert!(layer.set("kept").await);
    scale_operator("0");
    for _ in 0..2 {
        let old = layer.heals().await;
        let process = layer.serving().await;
        layer.kill(old, "redis-server");
        layer.is_served_anew(process).await;
        layer.heals().await;
        eventually("it takes a write", SOON, async || layer.set("again").await).await;
    }
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    scale_operator("2");
    // Its status is what the operator saw before it left, until it has looked again.
    eventually("status names the primary of now", SOON, async || {
        let named = layer.object().await.status.and_then(|status| status.primary);
        layer.whole().await.is_some_and(|primary| named == Some(layer.pod_owner(primary)))
    })
    .await;
    layer.ready().await;
    status_is_true(&layer).await;
    stage.leave(layer).await;
}
