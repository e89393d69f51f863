//! From a validated layer to Kubernetes objects. Pure: no client required, no clock, no randomness.
//!
//! Knows the shape of every object; must never see a client, Redis or the planner.

mod document;
mod inputs;
pub(crate) mod object;
pub(crate) mod pod;
pub(crate) mod revision;
pub(crate) mod secrets;
pub(crate) mod services;
pub mod uses;
pub(crate) mod workload;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

pub use self::inputs::{Credentials, Inputs};
use self::object::{component, metadata, object};
pub(crate) use self::services::of_primary as primary_service;
pub(crate) use self::workload::BuiltNode;
use crate::api::names;
use crate::model::cluster::Shard;
use crate::model::{Mode, NodeId, NodeKind};
use crate::validate::ValidatedLayer;

/// The objects of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Service of the primary.
    pub primary_service: Service,
    /// Services of the replicas and the Sentinels.
    pub services: Vec<Service>,
    /// The Service that gives each node its address.
    pub node_services: BTreeMap<NodeId, Service>,
    /// One for each kind of node that the layer has several of.
    pub budgets: Vec<PodDisruptionBudget>,
    /// The system Secret, and the bindings of the layer's own users.
    pub secrets: Vec<Secret>,
    /// The nodes; empty until every address is known, because each node is told all of them.
    pub nodes: BTreeMap<NodeId, BuiltNode>,
}

/// All nodes that a layer declares.
pub fn declared(layer: &ValidatedLayer) -> Vec<NodeId> {
    let of_shard = |shard: u16| (0..layer.data_nodes).map(move |index| Shard(shard).node(index));
    (0..layer.shards).flat_map(of_shard).chain((0..layer.sentinels).map(NodeId::sentinel)).collect()
}

/// The layer's objects and node configurations. Pure: the same inputs give the same bytes, so digests can be compared.
pub fn build(inputs: &Inputs<'_>) -> Built {
    let declared = declared(inputs.layer);
    let all_known = declared.iter().all(|node| inputs.addresses.contains_key(node));
    let nodes = declared.iter().filter(|_| all_known).map(|node| (*node, workload::node(inputs, *node)));
    Built {
        primary_service: services::of_primary(&inputs.layer.identity, inputs.primary),
        services: services::of_others(inputs),
        node_services: declared.iter().map(|node| (*node, services::of_node(inputs, *node))).collect(),
        budgets: budgets(inputs),
        secrets: secrets::secrets(inputs),
        nodes: nodes.collect(),
    }
}

/// One pod of each kind, in mode `Cluster` of each shard, may be away: with two, data nodes can lose their only other copy, Sentinels their majority. It is said as a
/// number of pods that stay, because each node has a StatefulSet of its own: of `maxUnavailable` Kubernetes counts those of the pods that
/// there are, and lets the next one go where an evicted pod cannot be made again. Nodes that are to be removed count until they are gone.
fn budgets(inputs: &Inputs<'_>) -> Vec<PodDisruptionBudget> {
    let layer = inputs.layer;
    let nodes: BTreeSet<NodeId> = declared(layer).into_iter().chain(inputs.addresses.keys().copied()).collect();
    let several = |count: u16| count > 1;
    if layer.mode == Mode::Cluster {
        let shards: BTreeSet<Shard> = nodes.iter().filter_map(|node| Shard::of(*node)).collect();
        let of_shard = |shard: Shard| {
            let count = nodes.iter().filter(|node| Shard::of(**node) == Some(shard)).count();
            budget(inputs, NodeKind::Data, &names::shard_budget(&layer.identity.name, shard), count, Some(shard))
        };
        return shards.into_iter().filter(|_| several(layer.data_nodes)).map(of_shard).collect();
    }
    let kinds = [(NodeKind::Data, layer.data_nodes), (NodeKind::Sentinel, layer.sentinels)];
    let of_kind = |(kind, _)| {
        let count = nodes.iter().filter(|node| node.kind == kind).count();
        budget(inputs, kind, &names::disruption_budget(&layer.identity.name, kind), count, None)
    };
    kinds.into_iter().filter(|(_, count)| several(*count)).map(of_kind).collect()
}

/// `count`: pods that it selects.
fn budget(inputs: &Inputs<'_>, kind: NodeKind, name: &str, count: usize, shard: Option<Shard>) -> PodDisruptionBudget {
    let layer = &inputs.layer.identity;
    let mut selector = json!({names::LABEL_LAYER: layer.name, names::LABEL_COMPONENT: component(kind)});
    if let Some(shard) = shard {
        selector[names::LABEL_SHARD] = json!(shard.0.to_string());
    }
    object(json!({
        "metadata": metadata(layer, name, kind, &[(names::LABEL_COMPONENT, component(kind))]),
        "spec": {
            "minAvailable": count - 1,
            // A pod that never became ready protects nothing, and must not keep a Kubernetes node from draining.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }))
}
