//! The node-config document of a node.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::Inputs;
use crate::model::cluster::Shard;
use crate::model::node_config::{ClusterConfig, NODE_CONFIG_FORMAT, NodeConfig};
use crate::model::{Address, Mode, NodeId, NodeKind, milliseconds};

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
    let data_nodes: BTreeMap<u16, Address> = addresses(NodeKind::Data);
    let is_of_shard = |ordinal: u16| layer.mode != Mode::Cluster || Shard::of(NodeId::data(ordinal)) == Shard::of(node);
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
        functions: if node.kind == NodeKind::Data { inputs.called.clone() } else { BTreeSet::new() },
        data_nodes: data_nodes.clone().into_iter().filter(|(ordinal, _)| is_of_shard(*ordinal)).collect(),
        sentinels: addresses(NodeKind::Sentinel),
        master_name: layer.identity.master_name(),
        quorum: layer.quorum,
        detection_milliseconds: milliseconds(layer.detection),
        failover_timeout_milliseconds: milliseconds(layer.failover_timeout),
        grace_period_seconds: layer.grace_period_seconds,
        cluster: (layer.mode == Mode::Cluster).then_some(ClusterConfig { nodes: data_nodes }),
        settings: if node.kind == NodeKind::Data { layer.settings.clone() } else { BTreeMap::new() },
    }
}
