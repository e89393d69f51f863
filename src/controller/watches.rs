//! What is watched: our objects, the custom resources and the namespaces' labels, and which of their changes start a pass.
//!
//! Knows nothing of what a pass does.

use std::borrow::Cow;
use std::fmt::Debug;
use std::hash::Hash;

use futures::channel::mpsc::UnboundedSender;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::Api;
use kube::core::{DeserializeGuard, DynamicResourceScope, ObjectMeta, PartialObjectMeta};
use kube::runtime::predicates;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::watch_pauses::{pauses, without_errors};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::use_status::UseStatus;
use crate::api::uses::DeclaredUse;
use crate::model::UseKind;
use crate::observe::kubernetes::ClaimMeta;
use crate::validate::uses::layer_of as layer_of_use;

/// The custom resource as it is watched: one that no longer parses does not stop the others.
pub(super) type WatchedLayer = DeserializeGuard<DataLayer>;
pub(super) type SecretMeta = PartialObjectMeta<Secret>;
pub(super) type NamespaceMeta = PartialObjectMeta<Namespace>;

/// The same of uses. Of one that does not parse it is still known which layer it names.
#[derive(Clone, Debug)]
pub(crate) struct WatchedUse(pub Result<DeclaredUse, UnreadableUse>);

/// A use that does not parse.
#[derive(Clone, Debug)]
pub(crate) struct UnreadableUse {
    pub kind: UseKind,
    /// Why it does not parse, in serde's words.
    pub error: String,
    pub metadata: ObjectMeta,
    /// Namespace and name of its layer; `None`: they do not parse either.
    pub layer: Option<(String, String)>,
    /// What was reported of it last, as far as that parses.
    pub status: Option<UseStatus>,
}

impl WatchedUse {
    pub(crate) const fn kind(&self) -> UseKind {
        match &self.0 {
            Ok(declared) => declared.kind(),
            Err(unreadable) => unreadable.kind,
        }
    }

    /// What was reported of it last.
    pub(crate) const fn status(&self) -> Option<&UseStatus> {
        match &self.0 {
            Ok(declared) => declared.status.as_ref(),
            Err(unreadable) => unreadable.status.as_ref(),
        }
    }

    /// Namespace and name of the layer that it names, as far as they can be read.
    pub(crate) fn layer(&self) -> Option<(String, String)> {
        match &self.0 {
            Ok(declared) => Some(layer_of_use(declared)),
            Err(unreadable) => unreadable.layer.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for WatchedUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // The API server says the kind of a custom resource in each object, those of a list included.
        let Some(kind) = value["kind"].as_str().and_then(UseKind::of) else {
            return Err(serde::de::Error::custom(format!("{} is no kind of use", value["kind"])));
        };
        let error = match DeclaredUse::read(kind, &value) {
            Ok(declared) => return Ok(Self(Ok(declared))),
            Err(error) => error.to_string(),
        };
        let metadata = ObjectMeta::deserialize(&value["metadata"]).map_err(serde::de::Error::custom)?;
        let layer = named_layer(kind, &metadata, &value["spec"]["layer"]);
        let status = UseStatus::deserialize(&value["status"]).ok();
        Ok(Self(Err(UnreadableUse { kind, error, metadata, layer, status })))
    }
}

/// The layer that `spec.layer` names (`validate::uses::layer_of`), read as far as it can be.
fn named_layer(kind: UseKind, metadata: &ObjectMeta, layer: &Value) -> Option<(String, String)> {
    let (own, object) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    match (layer, &layer["name"]) {
        (Value::Null, _) | (Value::Object(_), Value::Null) => Some((own, names::dedicated_layer(kind, &object))),
        (Value::Object(_), Value::String(name)) => match &layer["namespace"] {
            Value::Null => Some((own, name.clone())),
            Value::String(namespace) => Some((namespace.clone(), name.clone())),
            _ => None,
        },
        _ => None,
    }
}

impl Resource for WatchedUse {
    type DynamicType = UseKind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &UseKind) -> Cow<'_, str> {
        <DeclaredUse as Resource>::kind(kind)
    }

    fn group(kind: &UseKind) -> Cow<'_, str> {
        DeclaredUse::group(kind)
    }

    fn version(kind: &UseKind) -> Cow<'_, str> {
        DeclaredUse::version(kind)
    }

    fn plural(kind: &UseKind) -> Cow<'_, str> {
        DeclaredUse::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, Resource::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, Resource::meta_mut)
    }
}

/// A watch of one kind with our labels, filled into a store, and the stream of what changed.
pub(super) fn watched<K>(
    client: &Client,
    scope: Option<&str>,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>)
where
    K: crate::act::kube::Object + Send + Sync + 'static,
{
    let api: Api<K> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default().labels(names::LABEL_LAYER))
        .backoff(pauses())
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .predicate_filter(predicates::resource_version, PredicateConfig::default());
    (store, without_errors(changes))
}

/// All layers that are looked after.
pub(super) fn all_layers(client: &Client, scope: Option<&str>) -> Api<WatchedLayer> {
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// All uses of a kind that are looked after.
pub(super) fn all_uses(client: &Client, scope: Option<&str>, kind: UseKind) -> Api<WatchedUse> {
    match scope {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

/// The watch of custom resources of one kind, each told to `news` when it is touched. `first` sees an event before the store
/// has it. Our own writes of status start no pass.
pub(super) fn uniquely<K, F>(
    api: Api<K>,
    kind: &K::DynamicType,
    first: F,
    news: UnboundedSender<K>,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, F>)
where
    F: Fn(&watcher::Event<K>) + Send + 'static,
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Clone + Debug + Default + Eq + Hash + Send + Sync + Unpin + 'static,
{
    let writer = reflector::store::Writer::new(kind.clone());
    let store = writer.as_reader();
    let changes = watcher(api, watcher::Config::default())
        .backoff(pauses())
        .modify(|object| object.meta_mut().managed_fields = None)
        .inspect_ok(first)
        .reflect(writer)
        .inspect_ok(move |event| {
            if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) =
                event
            {
                // The receiver is dropped during shutdown.
                let _ = news.unbounded_send(object.clone());
            }
        })
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::annotations), PredicateConfig::default());
    (store, without_errors(changes))
}

/// The watch of the namespaces' labels; nothing where only one namespace is looked after.
pub(super) fn namespaces(
    client: &Client,
    scope: Option<&str>,
) -> (Option<Store<NamespaceMeta>>, BoxStream<'static, NamespaceMeta>) {
    if scope.is_some() {
        return (None, futures::stream::pending().boxed());
    }
    let api: Api<NamespaceMeta> = Api::all(client.clone());
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default())
        .backoff(pauses())
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .filter_map(async |namespace| namespace.ok());
    (Some(store), changes.boxed())
}

/// The watch of our Secrets' metadata: what they hold is never sent. Where the operator may not watch Secrets, the store stays
/// without anything and is never ready.
pub(super) fn secrets(client: &Client, scope: Option<&str>) -> (Store<SecretMeta>, BoxStream<'static, SecretMeta>) {
    let api: Api<SecretMeta> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let changes = watcher(api, watcher::Config::default().labels(&ours))
        .backoff(pauses())
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .filter_map(async |secret| secret.ok());
    (store, changes.boxed())
}

/// The watch of the metadata of our volume claims. Where the operator may not watch them, the store stays without anything and is never
/// ready: no pass waits for it.
pub(super) fn claims(
    client: &Client,
    scope: Option<&str>,
) -> (Store<ClaimMeta>, impl Stream<Item = Result<ClaimMeta, watcher::Error>> + Send + use<>) {
    let api: Api<ClaimMeta> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default().labels(names::LABEL_LAYER))
        .backoff(pauses())
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects();
    (store, without_errors(changes))
}

/// The layer that a pod or a volume claim belongs to, by its label.
pub(super) fn layer_of<K: Resource>(object: &K) -> Option<ObjectRef<WatchedLayer>> {
    let metadata = object.meta();
    let name = metadata.labels.as_ref()?.get(names::LABEL_LAYER)?;
    Some(ObjectRef::new(name).within(metadata.namespace.as_deref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(spec: &Value) -> Option<(String, String)> {
        let object = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore",
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"}, "spec": spec,
        });
        let watched: WatchedUse = serde_json::from_value(object).unwrap();
        assert_eq!(watched.meta().uid.as_deref(), Some("uid-1"));
        watched.layer()
    }

    #[test]
    fn which_layer_a_store_names_is_known_even_if_the_rest_does_not_parse() {
        for idle in [json!("30m"), json!(7)] {
            let at = |layer: Value| json!({"idleTimeout": idle, "layer": layer});
            let place = |namespace: &str, name: &str| Some((namespace.to_owned(), name.to_owned()));
            assert_eq!(layer(&at(json!({"name": "shared", "namespace": "data"}))), place("data", "shared"));
            assert_eq!(layer(&at(json!({"name": "shared"}))), place("shop", "shared"));
            assert_eq!(layer(&at(json!({"dedicated": {"mode": "Sentinel"}}))), place("shop", "web-sessions"));
            assert_eq!(layer(&json!({"idleTimeout": idle})), place("shop", "web-sessions"));
        }
        assert_eq!(layer(&json!({"idleTimeout": "30m", "layer": {"name": 7}})), None);
        assert_eq!(layer(&json!({"idleTimeout": "30m", "layer": 7})), None);
    }
}
