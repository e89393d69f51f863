//! Services: a fixed address for each node, and one name each for the primary, the replicas and the Sentinels.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::inputs::Inputs;
use super::object::{component, metadata, object};
use crate::api::names;
use crate::model::node_config::{AGENT_PORT, BUS_PORT, REDIS_PORT, SENTINEL_PORT};
use crate::model::{LayerIdentity, Mode, NodeId, NodeKind};

fn port(name: &str, port: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"})
}

/// The node's own Service. Its address is what the node announces, so it must not change: once known it is asked for.
/// Not-ready pods are reachable: a replica that is not in sync still has to reach its primary.
pub(super) fn of_node(inputs: &Inputs<'_>, node: NodeId) -> Service {
    let layer = &inputs.layer.identity.name;
    let main = match node.kind {
        NodeKind::Data => port("redis", REDIS_PORT),
        NodeKind::Sentinel => port("sentinel", SENTINEL_PORT),
    };
    let mut spec = json!({
        "type": "ClusterIP",
        "ipFamilyPolicy": "SingleStack",
        "publishNotReadyAddresses": true,
        "selector": {names::LABEL_POD_NAME: names::pod(layer, node)},
        "ports": [main, port("http", AGENT_PORT)],
    });
    if inputs.layer.mode == Mode::Cluster {
        spec["ports"] = json!([main, port("http", AGENT_PORT), port("bus", BUS_PORT)]);
    }
    if let Some(address) = inputs.addresses.get(&node) {
        spec["clusterIP"] = json!(address);
    }
    let labels = [(names::LABEL_COMPONENT, component(node.kind)), (names::LABEL_NODE, &node.to_string())];
    object(
        json!({"metadata": metadata(&inputs.layer.identity, &names::node(layer, node), node.kind, &labels), "spec": spec}),
    )
}

/// The Service that selects the pod of the primary; `None`: no pod yet.
pub(crate) fn of_primary(layer: &LayerIdentity, primary: Option<NodeId>) -> Service {
    // One pod by name: a restart needs no operator, a move is one patch.
    let pod = primary.map_or_else(|| "nobody-yet".to_owned(), |node| names::pod(&layer.name, node));
    let selector = json!({names::LABEL_LAYER: layer.name, names::LABEL_POD_NAME: pod});
    shared(layer, &names::primary_service(&layer.name), NodeKind::Data, &selector, &port("redis", REDIS_PORT))
}

/// The Services of the replicas and of the Sentinels; of a Cluster the one of all data nodes.
pub(super) fn of_others(inputs: &Inputs<'_>) -> Vec<Service> {
    let layer = &inputs.layer.identity;
    if inputs.layer.mode == Mode::Cluster {
        // Any server tells a client where each slot is.
        let selector = json!({names::LABEL_LAYER: layer.name, names::LABEL_COMPONENT: "redis"});
        let name = names::primary_service(&layer.name);
        return vec![shared(layer, &name, NodeKind::Data, &selector, &port("redis", REDIS_PORT))];
    }
    if inputs.layer.sentinels == 0 {
        return Vec::new();
    }
    let replicas = json!({names::LABEL_LAYER: layer.name, names::LABEL_COMPONENT: "redis", names::LABEL_READS: "yes"});
    let sentinels = json!({names::LABEL_LAYER: layer.name, names::LABEL_COMPONENT: "sentinel"});
    let (redis, sentinel) = (port("redis", REDIS_PORT), port("sentinel", SENTINEL_PORT));
    vec![
        shared(layer, &names::replicas_service(&layer.name), NodeKind::Data, &replicas, &redis),
        shared(layer, &names::sentinels_service(&layer.name), NodeKind::Sentinel, &sentinels, &sentinel),
    ]
}

fn shared(layer: &LayerIdentity, name: &str, kind: NodeKind, selector: &Value, port: &Value) -> Service {
    object(json!({
        "metadata": metadata(layer, name, kind, &[]),
        "spec": {"type": "ClusterIP", "ipFamilyPolicy": "SingleStack", "selector": selector, "ports": [port]},
    }))
}
