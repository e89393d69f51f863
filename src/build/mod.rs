//! From a validated layer to Kubernetes objects. Pure: no client required, no clock, no randomness.
//!
//! Knows the shape of every object; must never see a client, Redis or the planner.

pub mod pod;
pub mod revision;
pub mod secrets;
pub mod services;
pub mod uses;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::names;
use crate::model::desired::DesiredNode;
use crate::model::node_config::{NODE_CONFIG_FORMAT, NodeConfig};
use crate::model::{Address, NodeId, NodeKind};
use crate::validate::ValidatedLayer;

/// Everything that the objects depend on.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The layer.
    pub layer: &'a ValidatedLayer,
    /// Announced addresses that are known so far: of declared nodes, and of those that are still to be removed.
    pub addresses: &'a BTreeMap<NodeId, Address>,
    /// Whether the layer was Ready once.
    pub initialised: bool,
    /// The defaults that were resolved for the layer, as JSON.
    pub resolved_defaults: &'a str,
    /// The data node whose pod the primary's Service selects; `None`: nobody's yet.
    pub primary: Option<NodeId>,
    /// The sources of all function libraries, as a list in JSON: servers that keep nothing start with them.
    pub functions: &'a str,
    /// The caches that the layer serves: prefix and channel of each.
    pub caches: &'a BTreeMap<String, String>,
    /// The prefixes of the layer's uses, as JSON: what the agents' audit goes by.
    pub prefixes: &'a str,
    /// The credentials.
    pub credentials: secrets::Credentials<'a>,
}

/// The objects of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Services of the primary, the replicas and the Sentinels.
    pub services: Vec<Service>,
    /// Services of the nodes.
    pub node_services: BTreeMap<NodeId, Service>,
    /// Disruption budgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// The nodes; empty until every address is known, because each node is told all of them.
    pub nodes: BTreeMap<NodeId, BuiltNode>,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltNode {
    /// Its StatefulSet.
    pub workload: StatefulSet,
    /// Its node-config document.
    pub document: String,
    /// Its revisions, for the planner.
    pub revisions: DesiredNode,
}

/// All nodes that a layer declares.
pub fn declared(layer: &ValidatedLayer) -> Vec<NodeId> {
    (0..layer.data_nodes).map(NodeId::data).chain((0..layer.sentinels).map(NodeId::sentinel)).collect()
}

/// Builds the objects.
pub fn build(inputs: &Inputs<'_>) -> Built {
    let declared = declared(inputs.layer);
    let all_known = declared.iter().all(|node| inputs.addresses.contains_key(node));
    let nodes = declared.iter().filter(|_| all_known).map(|node| (*node, workload::node(inputs, *node)));
    Built {
        services: services::shared(inputs),
        node_services: declared.iter().map(|node| (*node, services::of_node(inputs, *node))).collect(),
        budgets: budgets(inputs),
        secrets: secrets::secrets(inputs),
        nodes: nodes.collect(),
    }
}

/// The document of one node.
pub(crate) fn node_config(inputs: &Inputs<'_>, node: NodeId) -> NodeConfig {
    let layer = inputs.layer;
    // Data nodes that are still to be removed as well: one of them may be the primary, and a node that boots and does not know
    // it would take the layer for one without a primary. Not so Sentinels: the agents introduce to theirs whom the document
    // names, and one that is to go would never be forgotten.
    let is_named = |node: &NodeId| node.kind == NodeKind::Data || node.ordinal < layer.sentinels;
    let addresses = |kind: NodeKind| {
        let of_kind = inputs.addresses.iter().filter(move |(node, _)| node.kind == kind && is_named(node));
        of_kind.map(|(node, address)| (node.ordinal, address.clone())).collect()
    };
    NodeConfig {
        format: NODE_CONFIG_FORMAT,
        layer: layer.identity.clone(),
        node,
        mode: layer.mode,
        initialised: inputs.initialised,
        keeps_data: layer.keeps_data,
        accept_loss: layer.accept_loss,
        drop_aside: if node.kind == NodeKind::Data { layer.drop_aside.clone() } else { BTreeSet::new() },
        caches: if node.kind == NodeKind::Data { inputs.caches.clone() } else { BTreeMap::new() },
        data_nodes: addresses(NodeKind::Data),
        sentinels: addresses(NodeKind::Sentinel),
        master_name: layer.identity.master_name(),
        quorum: layer.quorum,
        detection_milliseconds: layer.detection_milliseconds,
        failover_timeout_milliseconds: layer.failover_timeout_milliseconds,
        grace_period_seconds: layer.grace_period_seconds,
        settings: if node.kind == NodeKind::Data { layer.settings.clone() } else { BTreeMap::new() },
    }
}

/// `redis` or `sentinel`.
pub(crate) const fn component(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Data => "redis",
        NodeKind::Sentinel => "sentinel",
    }
}

/// `metadata` of an object of the layer: name, owner, labels. `kind`: whom it serves.
pub(crate) fn metadata(inputs: &Inputs<'_>, name: &str, kind: NodeKind, further_labels: &[(&str, &str)]) -> Value {
    let identity = &inputs.layer.identity;
    let mut labels = json!({
        "app.kubernetes.io/name": "redis",
        "app.kubernetes.io/instance": identity.name,
        "app.kubernetes.io/part-of": names::MANAGED_BY,
        names::LABEL_STANDARD_COMPONENT: component(kind),
        names::LABEL_MANAGED_BY: names::MANAGED_BY,
        names::LABEL_LAYER: identity.name,
    });
    for (label, value) in further_labels {
        labels[*label] = json!(value);
    }
    json!({
        "name": name,
        "namespace": identity.namespace,
        "labels": labels,
        "ownerReferences": [{
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "DataLayer",
            "name": identity.name,
            "uid": identity.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}

/// An object from its JSON form.
pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("objects are written here in the shape of their types; a test builds each")
}

/// One pod of each kind may be away: with two, data nodes can lose their only other copy, Sentinels their majority.
fn budgets(inputs: &Inputs<'_>) -> Vec<PodDisruptionBudget> {
    let kinds = [(NodeKind::Data, inputs.layer.data_nodes), (NodeKind::Sentinel, inputs.layer.sentinels)];
    let several = kinds.into_iter().filter(|(_, count)| *count > 1);
    several
        .map(|(kind, _)| {
            let name = names::disruption_budget(&inputs.layer.identity.name, kind);
            object(json!({
                "metadata": metadata(inputs, &name, kind, &[(names::LABEL_COMPONENT, component(kind))]),
                "spec": {
                    "maxUnavailable": 1,
                    // A pod that never became ready protects nothing, and must not keep a Kubernetes node from draining.
                    "unhealthyPodEvictionPolicy": "AlwaysAllow",
                    "selector": {"matchLabels": {
                        names::LABEL_LAYER: inputs.layer.identity.name,
                        names::LABEL_COMPONENT: component(kind),
                    }},
                },
            }))
        })
        .collect()
}
