//! What is watched: our objects, the custom resources and the namespaces' labels, and which of their changes start a pass.
//!
//! Knows nothing of what a pass does.

use futures::channel::mpsc::UnboundedSender;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::predicates;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};

use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::session_store::SessionStore;

/// The custom resource as it is watched: one that no longer parses does not stop the others.
pub(super) type Watched = DeserializeGuard<DataLayer>;
/// The same of session stores.
pub(super) type WatchedStore = DeserializeGuard<SessionStore>;
/// Metadata of a namespace.
pub(super) type NamespaceMeta = PartialObjectMeta<Namespace>;

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
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .predicate_filter(predicates::resource_version, PredicateConfig::default());
    (store, changes)
}

/// The watch of custom resources of one kind, each told to `news` when it is touched. Our own writes of status start no pass.
pub(super) fn uniquely<K>(
    client: &Client,
    scope: Option<&str>,
    news: UnboundedSender<DeserializeGuard<K>>,
) -> (Store<DeserializeGuard<K>>, impl Stream<Item = Result<DeserializeGuard<K>, watcher::Error>> + Send + use<K>)
where
    K: crate::act::kube::Object + Send + Sync + 'static,
{
    let api: Api<DeserializeGuard<K>> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .inspect_ok(move |event| {
            if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object) =
                event
            {
                // Nobody listens any more once we are told to stop.
                let _ = news.unbounded_send(object.clone());
            }
        })
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::annotations), PredicateConfig::default());
    (store, changes)
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
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .filter_map(async |namespace| namespace.ok());
    (Some(store), changes.boxed())
}

/// The layer that a pod belongs to, by its label.
pub(super) fn layer_of(pod: &Pod) -> Option<ObjectRef<Watched>> {
    let name = pod.labels().get(names::LABEL_LAYER)?;
    Some(ObjectRef::new(name).within(pod.metadata.namespace.as_deref()?))
}
