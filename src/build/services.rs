//! Services: a fixed address for each node, and one name each for the primary, the replicas and the Sentinels.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::inputs::Inputs;
use super::object::{component, metadata, object};
use crate::api::names;
use crate::model::node_config::{AGENT_PORT, REDIS_PORT, SENTINEL_PORT};
use crate::model::{NodeId, NodeKind};

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
    if let Some(address) = inputs.addresses.get(&node) {
        spec["clusterIP"] = json!(address);
    }
    let labels = [(names::LABEL_COMPONENT, component(node.kind)), (names::LABEL_NODE, &node.to_string())];
    object(json!({"metadata": metadata(inputs, &names::node(layer, node), node.kind, &labels), "spec": spec}))
}

/// The Services that applications use.
pub(super) fn shared(inputs: &Inputs<'_>) -> Vec<Service> {
    let layer = &inputs.layer.identity.name;
    let service = |name: String, kind: NodeKind, selector: Value, port: Value| -> Service {
        object(json!({
            "metadata": metadata(inputs, &name, kind, &[]),
            "spec": {"type": "ClusterIP", "ipFamilyPolicy": "SingleStack", "selector": selector, "ports": [port]},
        }))
    };
    // One pod by name: a restart needs no operator, a move is one patch.
    let primary = inputs.primary.map_or_else(|| "nobody-yet".to_owned(), |node| names::pod(layer, node));
    let mut services = vec![service(
        names::primary_service(layer),
        NodeKind::Data,
        json!({names::LABEL_LAYER: layer, names::LABEL_POD_NAME: primary}),
        port("redis", REDIS_PORT),
    )];
    if inputs.layer.sentinels > 0 {
        services.push(service(
            names::replicas_service(layer),
            NodeKind::Data,
            json!({names::LABEL_LAYER: layer, names::LABEL_COMPONENT: "redis", names::LABEL_READS: "yes"}),
            port("redis", REDIS_PORT),
        ));
        services.push(service(
            names::sentinels_service(layer),
            NodeKind::Sentinel,
            json!({names::LABEL_LAYER: layer, names::LABEL_COMPONENT: "sentinel"}),
            port("sentinel", SENTINEL_PORT),
        ));
    }
    services
}
