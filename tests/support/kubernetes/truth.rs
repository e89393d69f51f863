//! What a layer's status and bindings say, asked of the servers.

use redoubt::model::{NodeId, NodeKind, Role};
use redoubt::redis::{Connection, Endpoint, Secret, server};
use serde_json::json;

use crate::commands::kubectl;
use crate::layer::Layer;
use crate::polling::eventually;
use crate::test_namespace::SOON;

/// Status is true: roles, settings and functions are asked of every server.
pub async fn status_is_true(layer: &Layer) {
    let object = layer.object().await;
    let status = object.status.unwrap();
    let primary = layer.primary_in_sync().await.expect("Ready means whole");
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

/// What `kubectl get` and `kubectl scale` see.
pub async fn columns_and_scale_are_right(layer: &Layer, primary: NodeId) {
    let (name, namespace) = (&layer.identity.name, &layer.identity.namespace);
    let table = kubectl(&["-n", namespace, "get", "datalayers"]);
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0], ["NAME", "READY", "STATUS", "PRIMARY", "REPLICAS", "MEMORY", "VERSION", "AGE"]);
    assert_eq!(cells[1][..6], [name, "True", "Ready", &layer.pod_owner(primary), "2/2", "0%"], "{table}");
    assert!(cells[1].len() > 7 && cells[1].last().unwrap().ends_with(['s', 'm']), "{table}");
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

/// The binding alone is enough for a client with Sentinel support, and gives no right that is not the application's.
pub async fn the_binding_is_enough(layer: &Layer) {
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

/// The two Services of the application lead where they should.
pub async fn services_lead_where_they_should(layer: &Layer) {
    eventually("the primary's Service leads to a primary", SOON, async || {
        role_at(layer, "redis").await == Some(Role::Primary)
    })
    .await;
    eventually("the replicas' Service leads to a replica", SOON, async || {
        role_at(layer, "redis-replicas").await == Some(Role::Replica)
    })
    .await;
}
