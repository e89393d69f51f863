//! Who is woken by whose change: a store's layer by the store, a layer's stores by the layer, a namespace's stores by its labels.

use std::collections::BTreeMap;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::context::Context;
use super::watches::{NamespaceMeta, Watched, WatchedStore};
use crate::api::session_store::SessionStore;
use crate::validate::session_store::layer_of;

/// What of an object makes others look: not its status.
type Version = (Option<i64>, bool);

/// What was last seen of the objects of one kind, by UID.
#[derive(Default)]
struct Seen(BTreeMap<String, Version>);

impl Seen {
    /// Whether this is news.
    fn is_news(&mut self, meta: &kube::core::ObjectMeta) -> bool {
        let version = (meta.generation, meta.deletion_timestamp.is_some());
        self.0.insert(meta.uid.clone().unwrap_or_default(), version) != Some(version)
    }

    /// Forgets an object that is gone.
    fn forget(&mut self, meta: &kube::core::ObjectMeta) {
        self.0.remove(meta.uid.as_deref().unwrap_or_default());
    }
}

/// Relays until the process stops leading.
pub(super) async fn relay(
    context: &Context,
    mut layers: UnboundedReceiver<Watched>,
    mut stores: UnboundedReceiver<WatchedStore>,
    mut namespaces: BoxStream<'static, NamespaceMeta>,
    to_layers: UnboundedSender<ObjectRef<Watched>>,
    to_stores: UnboundedSender<ObjectRef<WatchedStore>>,
) {
    let (mut seen_layers, mut seen_stores) = (Seen::default(), Seen::default());
    loop {
        futures::select! {
            layer = layers.next().fuse() => {
                let Some(layer) = layer else { return };
                let place = (layer.namespace().unwrap_or_default(), layer.name_any());
                let is_there = context.layer(&place.0, &place.1).is_some();
                if seen_layers.is_news(kube::Resource::meta(&layer)) || !is_there {
                    wake_stores(context, &to_stores, |store| layer_of(store) == place);
                }
                if !is_there {
                    seen_layers.forget(kube::Resource::meta(&layer));
                }
            }
            store = stores.next().fuse() => {
                let Some(store) = store else { return };
                let here = ObjectRef::new(&store.name_any()).within(&store.namespace().unwrap_or_default());
                let is_there = context.session_stores.get(&here).is_some();
                let Ok(read) = &store.0 else { continue };
                if seen_stores.is_news(&read.metadata) || !is_there {
                    let (namespace, name) = layer_of(read);
                    let _ = to_layers.unbounded_send(ObjectRef::new(&name).within(&namespace));
                    // Those that this one was in the way of.
                    wake_stores(context, &to_stores, |other| {
                        layer_of(other) == (namespace.clone(), name.clone()) && is_refused(other)
                    });
                }
                if !is_there {
                    seen_stores.forget(&read.metadata);
                }
            }
            namespace = namespaces.next().fuse() => {
                let Some(namespace) = namespace else { return };
                let name = namespace.name_any();
                wake_stores(context, &to_stores, |store| store.namespace().as_ref() == Some(&name) && is_elsewhere(store));
            }
        }
    }
}

fn wake_stores(
    context: &Context,
    to_stores: &UnboundedSender<ObjectRef<WatchedStore>>,
    which: impl Fn(&SessionStore) -> bool,
) {
    for store in context.session_stores.state() {
        if store.0.as_ref().is_ok_and(&which) {
            let (name, namespace) = (store.name_any(), store.namespace().unwrap_or_default());
            // Nobody listens any more once we are told to stop.
            let _ = to_stores.unbounded_send(ObjectRef::new(&name).within(&namespace));
        }
    }
}

fn is_elsewhere(store: &SessionStore) -> bool {
    store.namespace().is_some_and(|own| layer_of(store).0 != own)
}

fn is_refused(store: &SessionStore) -> bool {
    let conditions = store.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|it| it.type_ == "Accepted" && it.status != "True")
}
