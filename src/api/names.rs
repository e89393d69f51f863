//! Every name, label, annotation and field manager that Redoubt writes: one place, so that nothing is spelled twice.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::cluster::Shard;
use crate::model::{NodeId, NodeKind, UseKind};

/// API group of all kinds.
pub(crate) const GROUP: &str = "redoubt.dev";
/// API version of all kinds.
pub(crate) const VERSION: &str = "v1alpha1";

/// Field manager of the objects built from a specification.
pub(crate) const MANAGER_OBJECTS: &str = "redoubt";
/// Field manager of what follows live roles on pods: the labels of reads and role. (The primary Service's selector is a part of the Service as it is
/// built, by [`MANAGER_OBJECTS`].)
pub(crate) const MANAGER_ROLES: &str = "redoubt-roles";
/// Field manager of the list of tenants in a layer's status.
pub(crate) const MANAGER_TENANTS: &str = "redoubt-tenants";
/// Field manager of status.
pub(crate) const MANAGER_STATUS: &str = "redoubt-status";

/// Label: name of the layer that an object belongs to.
pub const LABEL_LAYER: &str = "redoubt.dev/layer";
/// Label: `redis` or `sentinel`.
pub(crate) const LABEL_COMPONENT: &str = "redoubt.dev/component";
/// Label of pods and StatefulSets: the node, `redis-0`.
pub const LABEL_NODE: &str = "redoubt.dev/node";
/// Label of the data pods of mode `Cluster` and of their StatefulSets: the number of the shard.
pub(crate) const LABEL_SHARD: &str = "redoubt.dev/shard";
/// Label of data pods: `yes` while the replicas' Service selects the pod.
pub(crate) const LABEL_READS: &str = "redoubt.dev/reads";
/// Label of pods: `primary`, `replica` or `sentinel`; absent while it is not known.
pub(crate) const LABEL_ROLE: &str = "redoubt.dev/role";
/// Standard labels (`app.kubernetes.io`).
pub(crate) const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Annotation of a Secret: which root key its passwords are made of.
pub(crate) const ANNOTATION_ROOT_KEY: &str = "redoubt.dev/root-key";
/// Name of the operator's Lease, and of the controller in events.
pub(crate) const OPERATOR: &str = "redoubt-operator";
/// Value of [`LABEL_MANAGED_BY`] and `app.kubernetes.io/part-of`.
pub(crate) const MANAGED_BY: &str = "redoubt";
/// Standard label: `redis` or `sentinel`.
pub(crate) const LABEL_STANDARD_COMPONENT: &str = "app.kubernetes.io/component";
/// Labels of pods that are ours apart from those of [`OUR_PREFIXES`].
pub(crate) const LABELS_OF_PODS: [&str; 5] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/part-of",
    LABEL_MANAGED_BY,
    LABEL_STANDARD_COMPONENT,
];
/// Annotations of pods that are ours apart from those of [`OUR_PREFIXES`].
pub(crate) const ANNOTATIONS_OF_PODS: [&str; 3] = ["prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"];
/// Beginnings of labels and annotations that are ours or Kubernetes' own.
pub(crate) const OUR_PREFIXES: [&str; 3] = ["redoubt.dev/", "statefulset.kubernetes.io/", "apps.kubernetes.io/"];
/// Label that the StatefulSet controller puts on each pod.
pub const LABEL_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// Annotation of pods: the node-config document (`model::node_config`), which the agent sees as a file.
pub(crate) const ANNOTATION_NODE_CONFIG: &str = "redoubt.dev/node-config";
/// Annotation of pods and StatefulSets: digest of what only a new pod can take.
pub(crate) const ANNOTATION_RESTART_REVISION: &str = "redoubt.dev/restart-revision";
/// Annotation of StatefulSets: digest of the whole object as built.
pub(crate) const ANNOTATION_DIGEST: &str = "redoubt.dev/digest";
/// Annotation of StatefulSets: defaults that were resolved once for the layer (images, percentages), as JSON.
pub(crate) const ANNOTATION_RESOLVED_DEFAULTS: &str = "redoubt.dev/resolved-defaults";
/// Annotation of StatefulSets: `true` once the layer was Ready.
pub(crate) const ANNOTATION_INITIALISED: &str = "redoubt.dev/initialised";
/// Annotation of the system Secret: the specification that was accepted last, as JSON.
pub(crate) const ANNOTATION_ACCEPTED_SPECIFICATION: &str = "redoubt.dev/accepted-specification";
/// Annotation that a person sets on a `DataLayer`: ordinal of the data node whose data to go on with.
pub(crate) const ANNOTATION_ACCEPT_LOSS: &str = "redoubt.dev/accept-loss";
/// Annotation that a person sets on a `DataLayer`: folders of data that was kept aside and is not needed, separated by commas.
pub(crate) const ANNOTATION_DROP_ASIDE: &str = "redoubt.dev/drop-aside";
/// On a cache: what the keys begin with that are to be removed, the cache's prefix first.
pub(crate) const ANNOTATION_INVALIDATE_PREFIX: &str = "redoubt.dev/invalidate-prefix";
/// Annotation that a person sets on a `DataLayer` to approve a manual roll: the generation.
pub(crate) const ANNOTATION_APPROVED_GENERATION: &str = "redoubt.dev/approved-generation";

/// Annotation that a person sets on a `DataLayer` to restart its pods, and that each pod made since has: any text, such as the time.
pub(crate) const ANNOTATION_RESTARTED_AT: &str = "redoubt.dev/restarted-at";
/// Annotation that a person sets on a `DataLayer` to move the primary once: name of the pod, or of its StatefulSet.
pub(crate) const ANNOTATION_PROMOTE: &str = "redoubt.dev/promote";
/// Annotation that `kubectl rollout restart` sets on a StatefulSet's template.
pub(crate) const ANNOTATION_ROLLOUT_RESTART: &str = "kubectl.kubernetes.io/restartedAt";

/// Annotation of the binding Secret of a use: which of its credentials it shows.
pub(crate) const ANNOTATION_ROTATION: &str = "redoubt.dev/rotation";
/// Annotation of the binding Secret of a use: the credentials that it showed before, while they are still valid.
pub(crate) const ANNOTATION_PREVIOUS_ROTATION: &str = "redoubt.dev/previous-rotation";
/// Annotation of the binding Secret of a use: since when it has shown what it shows, milliseconds since the Unix epoch.
pub(crate) const ANNOTATION_ROTATED_AT: &str = "redoubt.dev/rotated-at";

/// Longest name of a use: its dedicated layer is named after it.
pub(crate) const LONGEST_USE_NAME: usize = 31;
/// Longest name of a layer: `NAME-sentinel-NN` must stay a StatefulSet name whose pods' revision label fits 63 characters.
pub(crate) const LONGEST_LAYER_NAME: usize = 40;

/// Field of the system Secret: the users of the data nodes, as an ACL file.
pub(crate) const DATA_USERS_FILE: &str = "data-users.acl";
/// Field of the system Secret: the users of the Sentinels, as an ACL file.
pub(crate) const SENTINEL_USERS_FILE: &str = "sentinel-users.acl";

/// Service of the primary.
pub fn primary_service(layer: &str) -> String {
    format!("{layer}-redis")
}

/// Service of the replicas.
pub fn replicas_service(layer: &str) -> String {
    format!("{layer}-redis-replicas")
}

pub(crate) fn sentinels_service(layer: &str) -> String {
    format!("{layer}-sentinel")
}

/// StatefulSet and Service of one node: `web-redis-0`, `web-sentinel-2`.
pub fn node(layer: &str, node: NodeId) -> String {
    format!("{layer}-{node}")
}

/// The one pod of a node's StatefulSet.
pub fn pod(layer: &str, node_id: NodeId) -> String {
    format!("{}-0", node(layer, node_id))
}

/// The labels of a node's StatefulSet by which its pod is found too: by Services, by the StatefulSet and by the operator.
pub(crate) fn finding_labels(workload: &ObjectMeta) -> BTreeMap<String, String> {
    let labels = workload.labels.iter().flatten();
    let is_one = |label: &String| [LABEL_LAYER, LABEL_NODE, LABEL_COMPONENT].contains(&label.as_str());
    labels.filter(|(label, _)| is_one(label)).map(|(label, value)| (label.clone(), value.clone())).collect()
}

/// Volume of a node's pod, and the template of its claim.
pub(crate) const DATA_VOLUME: &str = "data";

/// The claim that Kubernetes makes for the volume of a node's pod (StatefulSet documentation, "Stable Storage").
pub fn volume_claim(layer: &str, node_id: NodeId) -> String {
    format!("{DATA_VOLUME}-{}", pod(layer, node_id))
}

/// Secret with the passwords of the system users.
pub(crate) fn system_secret(layer: &str) -> String {
    format!("{layer}-redis-system")
}

/// Binding Secret of the application user.
pub(crate) fn application_secret(layer: &str) -> String {
    format!("{layer}-redis-app")
}

pub(crate) fn administrator_secret(layer: &str) -> String {
    format!("{layer}-redis-admin")
}

/// The dedicated layer of a use.
pub fn dedicated_layer(kind: UseKind, name: &str) -> String {
    format!("{name}-{}", kind.words().layer_suffix)
}

/// Binding Secret of a use.
pub fn binding(kind: UseKind, name: &str) -> String {
    format!("{name}-{}", kind.words().binding_suffix)
}

/// Secret for a rate limit service of a rate limit policy.
pub(crate) fn export(name: &str) -> String {
    format!("{name}-limit-export")
}

/// Disruption budget of a shard.
pub(crate) fn shard_budget(layer: &str, shard: Shard) -> String {
    format!("{layer}-shard-{}", shard.0)
}

/// Disruption budget of the data nodes or of the Sentinels.
pub(crate) fn disruption_budget(layer: &str, kind: NodeKind) -> String {
    match kind {
        NodeKind::Data => format!("{layer}-redis"),
        NodeKind::Sentinel => format!("{layer}-sentinel"),
    }
}
