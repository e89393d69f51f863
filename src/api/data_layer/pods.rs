//! `spec.scheduling`, `spec.podMetadata` and `spec.update`: where pods run, what is written on them, and how they are
//! replaced. The texts become descriptions in the CRD.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{metadata_rules, name_rules};

/// Where pods may run. Data pods, and Sentinels, are spread over nodes and zones in any case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a Kubernetes node must have, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20))]
    #[x_kube(
        validation = Rule::new(metadata_rules::KEYS_ARE_NAMES).message("scheduling.nodeSelector: a key is a Kubernetes label name, such as 'disk' or 'example.com/disk'"),
        validation = Rule::new(metadata_rules::VALUES_ARE_LABELS).message("scheduling.nodeSelector: a value is letters, digits, '-', '_' and '.', at most 63 characters, and begins and ends with a letter or digit")
    )]
    pub node_selector: Option<BTreeMap<String, LabelValue>>,
    /// Taints that pods tolerate, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new(name_rules::are_operators()).message(name_rules::OPERATORS_MESSAGE),
        validation = Rule::new(name_rules::are_effects()).message(name_rules::EFFECTS_MESSAGE),
        validation = Rule::new(name_rules::COMPARE_SOMETHING).message(name_rules::COMPARE_MESSAGE)
    )]
    pub tolerations: Option<Vec<Toleration>>,
    /// Affinity, in addition to the spreading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Priority class of the pods, at most 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(name_rules::is_object_name_or_none()).message(Message::Expression(name_rules::object_name_message("scheduling.priorityClassName", "PriorityClass"))))]
    pub priority_class_name: Option<String>,
}

/// Labels and annotations to add to each pod. A change rolls the pods. Those of `redoubt.dev`, and those that Redoubt sets
/// itself, are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PodMetadata {
    /// Labels to add to each pod, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20))]
    #[x_kube(
        validation = Rule::new(metadata_rules::KEYS_ARE_NAMES).message("podMetadata.labels: a key is a Kubernetes label name, such as 'team' or 'example.com/team'"),
        validation = Rule::new(metadata_rules::VALUES_ARE_LABELS).message("podMetadata.labels: a value is letters, digits, '-', '_' and '.', at most 63 characters, and begins and ends with a letter or digit"),
        validation = Rule::new(metadata_rules::labels_are_not_ours()).message("podMetadata.labels: this label is Redoubt's own to set")
    )]
    pub labels: Option<BTreeMap<String, LabelValue>>,
    /// Annotations to add to each pod, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 20))]
    #[x_kube(
        validation = Rule::new(metadata_rules::KEYS_ARE_NAMES).message("podMetadata.annotations: a key is a Kubernetes annotation name, such as 'team' or 'example.com/team'"),
        validation = Rule::new(metadata_rules::annotations_are_not_ours()).message("podMetadata.annotations: this annotation is Redoubt's own to set")
    )]
    pub annotations: Option<BTreeMap<String, AnnotationValue>>,
}

/// Value of a label, at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LabelValue(#[schemars(length(max = 63))] pub String);

/// Value of an annotation, at most 4,096 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AnnotationValue(#[schemars(length(max = 4096))] pub String);

/// How changes that restart pods are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// `Automatic`: node by node, at once. `Manual`: after the annotation `redoubt.dev/approved-generation` names the
    /// generation. Default: `Automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalPolicy>,
}

/// `Automatic`: node by node, at once. `Manual`: after the annotation `redoubt.dev/approved-generation` names the
/// generation. Default: `Automatic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalPolicy {
    /// A change begins at once.
    Automatic,
    /// A change waits for the annotation `redoubt.dev/approved-generation`.
    Manual,
}
