//! The namespace of a claim: the operator running, a namespace of its own, a layer in it, and what can be done to it.
//!
//! Everything that a claim looks at is asked of the servers themselves, with the application's own credentials: the operator's
//! status is one of the things under test.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use redoubt::api::data_layer::DataLayer;
use redoubt::api::session_store::SessionStore;
use redoubt::model::LayerIdentity;
use serde_json::{Value, json};

pub use crate::layer::{Layer, is_ready};
use crate::place;
pub use crate::polling::eventually;

/// Patience where the claim names no time.
pub const SOON: Duration = Duration::from_mins(3);
/// Redis 7.0.
pub const REDIS_7: &str = "localhost/redis:7.0";
/// All engines.
pub const ENGINES: [(&str, &str); 3] =
    [("redis-7", REDIS_7), ("redis-8", "localhost/redis:8.0"), ("valkey-8", "localhost/valkey:8.1")];
/// Writers of a history.
pub const WRITERS: usize = 2;

/// The engine of each claim that names none: the image in `REDOUBT_ENGINE`, else the operator's default.
pub fn engine() -> &'static str {
    static ENGINE: OnceLock<String> = OnceLock::new();
    ENGINE.get_or_init(|| std::env::var("REDOUBT_ENGINE").unwrap_or_else(|_| "localhost/valkey:8.1".to_owned()))
}

/// Layers that claims have left Ready, for the next that asks for one.
pub static LEFT: Mutex<Vec<LayerIdentity>> = Mutex::new(Vec::new());
/// On the namespace of a layer that was left.
pub const LEFT_LABEL: &str = "e2e.redoubt.dev/left";
/// On a namespace whose claim has ended.
pub const ENDED_LABEL: &str = "e2e.redoubt.dev/ended";

/// A namespace of a claim. It enforces Pod Security `restricted`.
pub struct TestNamespace {
    /// The API server.
    pub client: Client,
    /// Its name.
    pub name: String,
    /// The operator's service for this claim.
    operator: Option<place::Service>,
}

impl TestNamespace {
    /// A new namespace, with the operator running.
    pub async fn create(namespace: &str) -> Self {
        let operator = place::operator_of(namespace).await;
        Self::create_with(namespace, operator).await
    }

    /// A new namespace, with this operator.
    pub async fn create_with(namespace: &str, operator: place::Service) -> Self {
        Self::create_for(namespace, Some(operator)).await
    }

    /// Another new namespace, for the operator of this one, which must watch all.
    pub async fn another(&self, namespace: &str) -> Self {
        Self::create_for(namespace, None).await
    }

    async fn create_for(namespace: &str, operator: Option<place::Service>) -> Self {
        let client = crate::client().await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        // That of an earlier run, which may have failed half-way.
        let gone = async || {
            let left = namespaces.get_opt(namespace).await.unwrap();
            if left.as_ref().is_some_and(|space| space.metadata.deletion_timestamp.is_none()) {
                namespaces.delete(namespace, &DeleteParams::default()).await.unwrap();
            }
            left.is_none()
        };
        eventually("the namespace of an earlier run is gone", SOON, gone).await;
        let space =
            json!({"metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(space).unwrap()).await.unwrap();
        Self { client, name: namespace.to_owned(), operator }
    }

    /// A namespace with a layer `web` as [`Self::layer`] makes one, ready and empty: one that an earlier claim of this process has left,
    /// or a new one in `namespace`. To make one costs two processors eight seconds, a third of the time of most claims.
    pub async fn with_layer(namespace: &str) -> (Self, Layer) {
        while let Some(identity) = next_left() {
            let operator = place::operator_in(&identity.namespace).await;
            // A claim that had to be alone may have ended it meanwhile.
            let layers: Api<DataLayer> = Api::namespaced(crate::client().await, &identity.namespace);
            if layers.get_opt(&identity.name).await.unwrap().is_none() {
                continue;
            }
            println!("on the layer in {}", identity.namespace);
            // A client ends with the claim that made it.
            let client = crate::client().await;
            let namespace = Self { client: client.clone(), name: identity.namespace.clone(), operator: Some(operator) };
            let layer = Layer { client, identity };
            layer.ready().await;
            return (namespace, layer);
        }
        let namespace = Self::create(namespace).await;
        let layer = namespace.layer("web", json!({})).await;
        layer.ready().await;
        (namespace, layer)
    }

    /// As [`Self::with_layer`], of an engine; that of [`engine`] may be one that was left.
    pub async fn with_layer_of(namespace: &str, image: &str) -> (Self, Layer) {
        if image == engine() {
            return Self::with_layer(namespace).await;
        }
        let namespace = Self::create(namespace).await;
        let layer = namespace.layer("web", json!({"engine": {"image": image}})).await;
        layer.ready().await;
        (namespace, layer)
    }

    /// [`Self::leave`], if its engine is one that others ask for.
    pub async fn leave_of(self, layer: Layer, image: &str) {
        if image == engine() { self.leave(layer).await } else { self.delete().await }
    }

    /// Leaves a layer that is declared as [`Self::with_layer`] gave it to the next claim, once it is Ready again.
    pub async fn leave(mut self, layer: Layer) {
        layer.ready().await;
        layer.empty().await;
        label(&self.client, &self.name, LEFT_LABEL).await;
        if let Some(operator) = &mut self.operator {
            operator.leave();
        }
        LEFT.lock().unwrap().push(layer.identity);
    }

    /// Applies a layer: mode Sentinel on [`engine`], and what `further` says.
    pub async fn layer(&self, name: &str, further: Value) -> Layer {
        let mut spec = json!({"mode": "Sentinel", "cpu": "20m", "engine": {"image": engine(), "pullPolicy": "Never"}});
        merge(&mut spec, further);
        let body = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer",
            "metadata": {"name": name}, "spec": spec,
        });
        let api: Api<DataLayer> = Api::namespaced(self.client.clone(), &self.name);
        let created = api.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        let identity =
            LayerIdentity { uid: created.uid().unwrap(), namespace: self.name.clone(), name: name.to_owned() };
        Layer { client: self.client.clone(), identity }
    }

    /// Ends what is in the namespace, which stops while the next claim begins, and the namespaces of earlier claims that are empty by
    /// now. One that is deleted with a layer in it costs 14 s of a processor, because controllers ask again and again to make what
    /// they miss, and are refused; one after the other costs 6.
    pub async fn delete(self) {
        if place::ENDS_WITH_THE_CLAIM {
            return;
        }
        let all = (DeleteParams::default(), ListParams::default());
        let everything = async {
            Api::<SessionStore>::namespaced(self.client.clone(), &self.name).delete_collection(&all.0, &all.1).await?;
            Api::<DataLayer>::namespaced(self.client.clone(), &self.name).delete_collection(&all.0, &all.1).await?;
            Api::<StatefulSet>::namespaced(self.client.clone(), &self.name).delete_collection(&all.0, &all.1).await?;
            Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &self.name)
                .delete_collection(&all.0, &all.1)
                .await
        };
        everything.await.unwrap();
        label(&self.client, &self.name, ENDED_LABEL).await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for space in namespaces.list(&ListParams::default().labels(ENDED_LABEL)).await.unwrap() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &space.name_any());
            if pods.list(&ListParams::default().limit(1)).await.unwrap().items.is_empty() {
                // The claim beside may do the same.
                let _ = namespaces.delete(&space.name_any(), &DeleteParams::default()).await;
            }
        }
    }
}

/// A function of its own, so that the lock is not held for longer.
fn next_left() -> Option<LayerIdentity> {
    LEFT.lock().unwrap().pop()
}

async fn label(client: &Client, namespace: &str, label: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let label = json!({"metadata": {"labels": {label: ""}}});
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
}

/// Lays `further` over `whole`, field by field.
fn merge(whole: &mut Value, further: Value) {
    match (whole, further) {
        (Value::Object(whole), Value::Object(further)) => {
            for (field, value) in further {
                merge(whole.entry(field).or_insert(Value::Null), value);
            }
        }
        (whole, further) => *whole = further,
    }
}
