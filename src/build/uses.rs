//! The objects of a use: its dedicated layer, and its binding Secret.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::object::object;
use super::secrets::{fill, service_binding};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::rate_limit_policy::ExportProgram;
use crate::api::uses::DeclaredUse;
use crate::model::UseKind;
use crate::validate::ValidatedLayer;
use crate::validate::uses::ValidatedUse;

/// The credentials that a binding Secret holds.
#[derive(Clone, Copy)]
pub struct BindingCredentials<'a> {
    /// Name of the use's ACL user.
    pub user: &'a str,
    /// In plain text, as it is in the Secret.
    pub password: &'a str,
    /// Number of the rotation, from 0; part of the user's name.
    pub rotation: u32,
    /// The ones that are still valid next to them.
    pub previous: Option<u32>,
    /// Since when, milliseconds since the Unix epoch.
    pub rotated_at: u64,
}

impl std::fmt::Debug for BindingCredentials<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "BindingCredentials({}, ***)", self.user)
    }
}

/// The layer of the use's own.
pub fn dedicated_layer(declared: &DeclaredUse) -> DataLayer {
    let spec = declared.spec.layer().and_then(|layer| layer.dedicated);
    let mut spec = spec.map_or_else(|| json!({"mode": "Sentinel"}), |spec| json!(spec));
    let kind = declared.kind();
    spec["purpose"] = json!(kind.words().purpose);
    if spec["access"]["application"].is_null() {
        // A user for all keys would be one more way to every use's.
        spec["access"]["application"] = json!(false);
    }
    let (name, namespace) = (declared.name_any(), declared.namespace().unwrap_or_default());
    let owner = Owner { kind, namespace: &namespace, name: &name, uid: &declared.uid().unwrap_or_default() };
    object(json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "DataLayer",
        "metadata": metadata(owner, &names::dedicated_layer(kind, &name)),
        "spec": spec,
    }))
}

/// The Secret with which an application finds its keys (Service Binding specification).
pub fn binding(accepted: &ValidatedUse, layer: &ValidatedLayer, shown: BindingCredentials<'_>) -> Secret {
    let mut fields = service_binding(layer, shown.user, shown.password);
    fields["prefix"] = json!(accepted.policy.prefix());
    if let Some(channel) = accepted.policy.channel() {
        fields["channel"] = json!(channel);
    }
    for (field, text) in &accepted.binding {
        fields[*field] = json!(text);
    }
    let ValidatedUse { kind, namespace, name, uid, .. } = accepted;
    let owner = Owner { kind: *kind, namespace, name, uid };
    let mut metadata = metadata(owner, &accepted.binding_name);
    metadata["annotations"] = json!({
        names::ANNOTATION_ROTATION: shown.rotation.to_string(),
        names::ANNOTATION_ROTATED_AT: shown.rotated_at.to_string(),
    });
    if let Some(previous) = shown.previous {
        metadata["annotations"][names::ANNOTATION_PREVIOUS_ROTATION] = json!(previous.to_string());
    }
    fill(object(json!({"metadata": metadata, "type": "servicebinding.io/redis"})), &fields)
}

/// The Secret that a rate limit service reads; `None`: the use declares none. The names of its fields are those of the service's own
/// settings. Its host is the Service that follows the primary.
pub fn export(accepted: &ValidatedUse, layer: &ValidatedLayer, shown: BindingCredentials<'_>) -> Option<Secret> {
    let fields = service_binding(layer, shown.user, shown.password);
    let text = |field: &str| fields[field].as_str().unwrap_or_default().to_owned();
    let BindingCredentials { user, password, .. } = shown;
    let fields = match accepted.export? {
        ExportProgram::EnvoyRateLimit => json!({
            "REDIS_URL": format!("{}:{}", text("host"), text("port")),
            "REDIS_AUTH": format!("{user}:{password}"),
            "CACHE_KEY_PREFIX": accepted.policy.prefix(),
        }),
        ExportProgram::Limitador => json!({"URL": text("uri")}),
    };
    let ValidatedUse { kind, namespace, name, uid, .. } = accepted;
    let owner = Owner { kind: *kind, namespace, name, uid };
    let metadata = metadata(owner, &names::export(name));
    Some(fill(object(json!({"metadata": metadata, "type": "Opaque"})), &fields))
}

/// The use that an object belongs to.
#[derive(Clone, Copy)]
struct Owner<'a> {
    kind: UseKind,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

/// `metadata` of an object that belongs to a use.
fn metadata(owner: Owner<'_>, name: &str) -> Value {
    let words = owner.kind.words();
    json!({
        "name": name,
        "namespace": owner.namespace,
        "labels": {
            "app.kubernetes.io/name": "redis",
            "app.kubernetes.io/instance": owner.name,
            "app.kubernetes.io/part-of": names::MANAGED_BY,
            names::LABEL_STANDARD_COMPONENT: words.component,
            names::LABEL_MANAGED_BY: names::MANAGED_BY,
        },
        "ownerReferences": [{
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": words.kind,
            "name": owner.name,
            "uid": owner.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}
