//! The pod: an init container that brings the agent, and the engine's container that the agent runs in.

use serde_json::{Value, json};

use super::inputs::Inputs;
use super::object::component;
use crate::api::names;
use crate::model::cluster::Shard;
use crate::model::node_config::{AGENT_PORT, BUS_PORT, FUNCTIONS_FILE, PREFIXES_FILE, REDIS_PORT, SENTINEL_PORT};
use crate::model::{Mode, NodeId, NodeKind};

/// User and group of the engine: Debian's and the official images'.
const USER: u32 = 999;
/// A Sentinel with its agent takes about 20 MiB.
const SENTINEL_MEMORY: &str = "64Mi";

/// The pod template, without the annotations that depend on it.
pub(super) fn template(inputs: &Inputs<'_>, node: NodeId) -> Value {
    let layer = inputs.layer;
    let mut labels = json!({});
    let mut annotations = json!({});
    for (name, value) in layer.pod_metadata.labels.iter().flatten() {
        labels[name] = json!(value);
    }
    for (name, value) in layer.pod_metadata.annotations.iter().flatten() {
        annotations[name] = json!(value);
    }
    for (name, value) in [
        ("app.kubernetes.io/name", "redis"),
        ("app.kubernetes.io/instance", layer.identity.name.as_str()),
        ("app.kubernetes.io/part-of", names::MANAGED_BY),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_LAYER, layer.identity.name.as_str()),
        (names::LABEL_STANDARD_COMPONENT, component(node.kind)),
        (names::LABEL_COMPONENT, component(node.kind)),
        (names::LABEL_NODE, node.to_string().as_str()),
    ] {
        labels[name] = json!(value);
    }
    if let Some(shard) = shard(inputs, node) {
        labels[names::LABEL_SHARD] = json!(shard.0.to_string());
    }
    if node.kind == NodeKind::Data {
        // The primary's is patched to "no"; without an operator the default errs on the harmless side.
        labels[names::LABEL_READS] = json!("yes");
    }
    for (name, value) in
        [("scrape", "true".to_owned()), ("port", AGENT_PORT.to_string()), ("path", "/metrics".to_owned())]
    {
        annotations[format!("prometheus.io/{name}")] = json!(value);
    }
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec(inputs, node)})
}

/// The shard of a node of mode `Cluster`.
pub(super) fn shard(inputs: &Inputs<'_>, node: NodeId) -> Option<Shard> {
    Shard::of(node).filter(|_| inputs.layer.mode == Mode::Cluster)
}

fn spec(inputs: &Inputs<'_>, node: NodeId) -> Value {
    let layer = inputs.layer;
    let grace = if node.kind == NodeKind::Data { layer.grace_period_seconds } else { 10 };
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [{
            "name": "agent",
            "image": layer.agent_image,
            "args": ["install", "/opt/redoubt"],
            "securityContext": security(),
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "volumeMounts": [{"name": "agent", "mountPath": "/opt/redoubt"}],
        }],
        "containers": [engine(inputs, node)],
        "volumes": volumes(inputs, node),
        "topologySpreadConstraints": spread(inputs, node),
    });
    let scheduling = &layer.scheduling;
    let further = [
        ("nodeSelector", json!(scheduling.node_selector)),
        ("tolerations", json!(scheduling.tolerations)),
        ("affinity", json!(scheduling.affinity)),
        ("priorityClassName", json!(scheduling.priority_class_name)),
    ];
    for (field, value) in further.into_iter().filter(|(_, value)| !value.is_null()) {
        spec[field] = value;
    }
    if !layer.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = layer.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    spec
}

/// Pod Security "restricted", and nothing writable but the mounts.
fn security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

fn engine(inputs: &Inputs<'_>, node: NodeId) -> Value {
    let layer = inputs.layer;
    let probe = |path: &str, failures: u32| json!({"httpGet": {"path": path, "port": AGENT_PORT}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": failures});
    let (port, cpu, memory) = match node.kind {
        NodeKind::Data => (REDIS_PORT, format!("{}m", layer.cpu_millicores), layer.memory.limit.to_string()),
        NodeKind::Sentinel => (SENTINEL_PORT, "20m".to_owned(), SENTINEL_MEMORY.to_owned()),
    };
    let mut container = json!({
        "name": component(node.kind),
        "image": layer.engine_image,
        "command": ["/opt/redoubt/redoubt", "agent"],
        "securityContext": security(),
        "ports": [{"name": component(node.kind), "containerPort": port}, {"name": "http", "containerPort": AGENT_PORT}],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        // Asks the agent, not the engine: however long a dataset loads or the boot rule waits, the answer is yes as soon as
        // the agent listens, which is the first thing that it does. A minute is for a starved Kubernetes node.
        "startupProbe": probe("/health/started", 60),
        "readinessProbe": probe("/health/ready", 1),
        // Only for an agent that no longer answers at all.
        "livenessProbe": {
            "httpGet": {"path": "/health/live", "port": AGENT_PORT},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": names::DATA_VOLUME, "mountPath": "/data"},
            {"name": "agent", "mountPath": "/opt/redoubt", "readOnly": true},
            {"name": "node", "mountPath": "/etc/redoubt/node", "readOnly": true},
            {"name": "secrets", "mountPath": "/etc/redoubt/secrets", "readOnly": true},
            {"name": "run", "mountPath": "/run/redoubt"},
        ],
    });
    if layer.mode == Mode::Cluster {
        container["ports"] = json!([
            {"name": "redis", "containerPort": REDIS_PORT},
            {"name": "http", "containerPort": AGENT_PORT},
            {"name": "bus", "containerPort": BUS_PORT},
        ]);
    }
    if let Some(policy) = &layer.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

fn volumes(inputs: &Inputs<'_>, node: NodeId) -> Vec<Value> {
    let (own_password, users) = match node.kind {
        NodeKind::Data => ("replication-password", "data-users.acl"),
        NodeKind::Sentinel => ("sentinel-password", "sentinel-users.acl"),
    };
    let item = |key: &str, path: &str| json!({"key": key, "path": path});
    let annotation = format!("metadata.annotations['{}']", names::ANNOTATION_NODE_CONFIG);
    let mut items =
        vec![item("agent-password", "agent-password"), item(own_password, own_password), item(users, "users.acl")];
    if node.kind == NodeKind::Data {
        items.push(item(PREFIXES_FILE, PREFIXES_FILE));
    }
    if node.kind == NodeKind::Data && !inputs.layer.keeps_data {
        items.push(item(FUNCTIONS_FILE, FUNCTIONS_FILE));
    }
    let mut volumes = vec![
        json!({"name": "agent", "emptyDir": {"sizeLimit": "128Mi"}}),
        json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": "node", "downwardAPI": {"items": [{"path": "config.json", "fieldRef": {"fieldPath": annotation}}]}}),
        json!({"name": "secrets", "secret": {
            "secretName": names::system_secret(&inputs.layer.identity.name),
            "defaultMode": 0o440,
            "items": items,
        }}),
    ];
    if node.kind == NodeKind::Data && inputs.layer.volume.is_none() {
        volumes.push(json!({"name": names::DATA_VOLUME, "emptyDir": {}}));
    }
    volumes
}

/// Evenly over the Kubernetes nodes that may be used, so that the loss of one takes as few as can be: with three, one replica
/// and one Sentinel; of a Cluster, no two nodes of a shard. (The scheduler's wish alone put two Sentinels of three on one node of three.) Over zones, if it can be.
fn spread(inputs: &Inputs<'_>, node: NodeId) -> Vec<Value> {
    let selector = json!({"matchLabels": {
        names::LABEL_LAYER: inputs.layer.identity.name,
        names::LABEL_COMPONENT: component(node.kind),
    }});
    if let Some(shard) = shard(inputs, node) {
        let mut of_shard = selector.clone();
        of_shard["matchLabels"][names::LABEL_SHARD] = json!(shard.0.to_string());
        let wish = |key: &str, selector: &Value| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector});
        return vec![
            json!({
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                "nodeTaintsPolicy": "Honor", "labelSelector": of_shard,
            }),
            wish("kubernetes.io/hostname", &selector),
            wish("topology.kubernetes.io/zone", &of_shard),
        ];
    }
    vec![
        json!({
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "nodeTaintsPolicy": "Honor", "labelSelector": selector,
        }),
        json!({
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
        }),
    ]
}
