//! What all objects of a layer have in common: labels, owner, and the way from JSON.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::names;
use crate::model::{LayerIdentity, NodeKind};

/// `redis` or `sentinel`.
pub(crate) const fn component(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Data => "redis",
        NodeKind::Sentinel => "sentinel",
    }
}

/// `metadata` of an object of the layer: name, owner, labels. `kind`: whom it serves.
pub(crate) fn metadata(identity: &LayerIdentity, name: &str, kind: NodeKind, further_labels: &[(&str, &str)]) -> Value {
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

#[cfg(test)]
thread_local! {
    /// How many objects this thread has made.
    pub(crate) static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// An object from its JSON form.
pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    #[cfg(test)]
    MADE.set(MADE.get() + 1);
    serde_json::from_value(value).expect("objects are written here in the shape of their types; a test builds each")
}
