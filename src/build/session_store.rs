//! The objects of a session store: its dedicated layer, and its binding Secret.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::object;
use super::secrets::{fill, service_binding};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::session_store::SessionStore;
use crate::validate::ValidatedLayer;
use crate::validate::session_store::ValidatedStore;

/// What a binding shows.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Name of the user.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Which credentials these are.
    pub rotation: u32,
    /// The ones that are still valid beside them.
    pub previous: Option<u32>,
    /// Since when, milliseconds since the Unix epoch.
    pub rotated_at: u64,
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shown({}, ***)", self.user)
    }
}

/// The layer of the store's own.
pub fn dedicated_layer(store: &SessionStore) -> DataLayer {
    let spec = store.spec.layer.as_ref().and_then(|layer| layer.dedicated.as_ref());
    let mut spec = spec.map_or_else(|| json!({"mode": "Sentinel"}), |spec| json!(spec));
    spec["purpose"] = json!("Sessions");
    if spec["access"]["application"].is_null() {
        // A user for all keys would be one more way to every session.
        spec["access"]["application"] = json!(false);
    }
    let (name, namespace) = (store.name_any(), store.namespace().unwrap_or_default());
    object(json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "DataLayer",
        "metadata": metadata(&namespace, &names::sessions_layer(&name), &name, &store.uid().unwrap_or_default()),
        "spec": spec,
    }))
}

/// The Secret with which an application finds its sessions (Service Binding specification).
pub fn binding(store: &ValidatedStore, layer: &ValidatedLayer, shown: Shown<'_>) -> Secret {
    let mut fields = service_binding(layer, shown.user, shown.password);
    fields["prefix"] = json!(store.policy.prefix);
    fields["wait-replicas"] = json!(store.wait_replicas.to_string());
    let mut metadata = metadata(&store.namespace, &names::session_binding(&store.name), &store.name, &store.uid);
    metadata["annotations"] = json!({
        names::ANNOTATION_ROTATION: shown.rotation.to_string(),
        names::ANNOTATION_ROTATED_AT: shown.rotated_at.to_string(),
    });
    if let Some(previous) = shown.previous {
        metadata["annotations"][names::ANNOTATION_PREVIOUS_ROTATION] = json!(previous.to_string());
    }
    fill(object(json!({"metadata": metadata, "type": "servicebinding.io/redis"})), &fields)
}

/// `metadata` of an object that belongs to a store.
fn metadata(namespace: &str, name: &str, store: &str, uid: &str) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": "redis",
            "app.kubernetes.io/instance": store,
            "app.kubernetes.io/part-of": names::MANAGED_BY,
            names::LABEL_STANDARD_COMPONENT: "session-store",
            names::LABEL_MANAGED_BY: names::MANAGED_BY,
        },
        "ownerReferences": [{
            "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
            "kind": "SessionStore",
            "name": store,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}
