//! One StatefulSet of one replica for each node.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::document::node_config;
use super::inputs::Inputs;
use super::object::{component, metadata, object};
use super::{pod, revision};
use crate::api::names;
use crate::model::desired::DesiredNode;
use crate::model::{NodeId, NodeKind, directives};

/// What runs one node of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltNode {
    /// With `OnDelete`: an update of it restarts no pod.
    pub workload: StatefulSet,
    /// The node-config document as JSON: an annotation of the pod template.
    pub document: String,
    /// Digests that the planner compares with those of the live objects.
    pub revisions: DesiredNode,
}

pub(super) fn node(inputs: &Inputs<'_>, node: NodeId) -> BuiltNode {
    let layer = &inputs.layer.identity.name;
    let document = serde_json::to_string(&node_config(inputs, node)).expect("the document has only text keys");
    let mut template = pod::template(inputs, node);
    let restart_revision = restart_revision(inputs, node, &template);
    template["metadata"]["annotations"][names::ANNOTATION_RESTART_REVISION] = json!(restart_revision);
    template["metadata"]["annotations"][names::ANNOTATION_NODE_CONFIG] = json!(document);
    if let Some(restarted_at) = &inputs.layer.restarted_at {
        // No part of the restart revision: an annotation that is taken away again restarts nothing.
        template["metadata"]["annotations"][names::ANNOTATION_RESTARTED_AT] = json!(restarted_at);
    }
    let name = node.to_string();
    let shard = pod::shard(inputs, node).map(|shard| shard.0.to_string());
    let mut labels = vec![(names::LABEL_COMPONENT, component(node.kind)), (names::LABEL_NODE, name.as_str())];
    labels.extend(shard.as_deref().map(|shard| (names::LABEL_SHARD, shard)));
    let mut whole = json!({
        "metadata": metadata(&inputs.layer.identity, &names::node(layer, node), node.kind, &labels),
        "spec": {
            "replicas": 1,
            "serviceName": names::node(layer, node),
            "podManagementPolicy": "Parallel",
            // Only we replace a pod, after its handover.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {names::LABEL_LAYER: layer, names::LABEL_NODE: node.to_string()}},
            "template": template,
        },
    });
    if let Some(claim) = claim(inputs, node) {
        let when_deleted = if retains(inputs, node) { "Retain" } else { "Delete" };
        whole["spec"]["volumeClaimTemplates"] = json!([claim]);
        whole["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": when_deleted, "whenScaled": "Retain"});
    }
    whole["metadata"]["annotations"] = json!({
        names::ANNOTATION_RESTART_REVISION: restart_revision,
        names::ANNOTATION_RESOLVED_DEFAULTS: inputs.resolved_defaults,
        names::ANNOTATION_INITIALISED: inputs.initialised.to_string(),
    });
    let workload_digest = revision::digest(&whole.to_string());
    whole["metadata"]["annotations"][names::ANNOTATION_DIGEST] = json!(workload_digest);
    let workload: StatefulSet = object(whole);
    let config_digest = revision::digest(&document);
    BuiltNode { workload, document, revisions: DesiredNode { workload_digest, restart_revision, config_digest } }
}

/// Digest of what only a new pod can take: its template, and the directives that a running server does not take.
fn restart_revision(inputs: &Inputs<'_>, node: NodeId, template: &Value) -> String {
    let settings = inputs.layer.settings.iter();
    let start_only: BTreeMap<_, _> = settings.filter(|(name, _)| directives::is_start_only(name)).collect();
    match node.kind {
        NodeKind::Data => revision::digest(&json!([template, start_only]).to_string()),
        NodeKind::Sentinel => revision::digest(&template.to_string()),
    }
}

fn retains(inputs: &Inputs<'_>, node: NodeId) -> bool {
    node.kind == NodeKind::Data && inputs.layer.volume.as_ref().is_some_and(|volume| volume.retain)
}

fn claim(inputs: &Inputs<'_>, node: NodeId) -> Option<Value> {
    let volume = inputs.layer.volume.as_ref();
    let size = match node.kind {
        NodeKind::Data => volume?.size.to_string(),
        NodeKind::Sentinel => inputs.layer.sentinel_volume.to_string(),
    };
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
    if let Some(class) = volume.and_then(|volume| volume.storage_class.as_ref()) {
        spec["storageClassName"] = json!(class);
    }
    let labels = json!({names::LABEL_LAYER: inputs.layer.identity.name, names::LABEL_NODE: node.to_string()});
    Some(json!({"metadata": {"name": names::DATA_VOLUME, "labels": labels}, "spec": spec}))
}
