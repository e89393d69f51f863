//! What is woken by which change: a store's layer by the store, a layer's stores by the layer, the layers that the stores of a
//! namespace name by its labels, and the layer of a Secret by an edit of it.

use std::collections::BTreeMap;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::context::Context;
use super::index::Place;
use super::watches::{NamespaceMeta, SecretMeta, Watched, WatchedStore};

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

/// What the watches tell.
pub(super) struct News {
    pub(super) layers: UnboundedReceiver<Watched>,
    pub(super) stores: UnboundedReceiver<WatchedStore>,
    pub(super) namespaces: BoxStream<'static, NamespaceMeta>,
    pub(super) secrets: BoxStream<'static, SecretMeta>,
}

/// Relays until the process stops leading.
pub(super) async fn relay(
    context: &Context,
    mut news: News,
    to_layers: UnboundedSender<ObjectRef<Watched>>,
    to_stores: UnboundedSender<ObjectRef<WatchedStore>>,
) {
    let (mut seen_layers, mut seen_stores) = (Seen::default(), Seen::default());
    // Nobody listens any more once we are told to stop.
    let wake_layer = |(namespace, name): Place| {
        let _ = to_layers.unbounded_send(ObjectRef::new(&name).within(&namespace));
    };
    loop {
        futures::select! {
            layer = news.layers.next().fuse() => {
                let Some(layer) = layer else { return };
                let place = (layer.namespace().unwrap_or_default(), layer.name_any());
                let is_there = context.layer(&place.0, &place.1).is_some();
                if seen_layers.is_news(kube::Resource::meta(&layer)) || !is_there {
                    for (namespace, name) in context.index.stores_of(&place) {
                        let _ = to_stores.unbounded_send(ObjectRef::new(&name).within(&namespace));
                    }
                }
                if !is_there {
                    seen_layers.forget(kube::Resource::meta(&layer));
                }
            }
            store = news.stores.next().fuse() => {
                let Some(store) = store else { return };
                let here = ObjectRef::new(&store.name_any()).within(&store.namespace().unwrap_or_default());
                let is_there = context.session_stores.get(&here).is_some();
                if (seen_stores.is_news(kube::Resource::meta(&store)) || !is_there)
                    && let Some(layer) = store.layer()
                {
                    wake_layer(layer);
                }
                if !is_there {
                    seen_stores.forget(kube::Resource::meta(&store));
                }
            }
            namespace = news.namespaces.next().fuse() => {
                let Some(namespace) = namespace else { return };
                context.index.foreign_layers_of(&namespace.name_any()).into_iter().for_each(wake_layer);
            }
            secret = news.secrets.next().fuse() => {
                let Some(secret) = secret else { return };
                if context.secrets.is_news(&secret)
                    && let Some(layer) = layer_of_secret(context, &secret)
                {
                    wake_layer(layer);
                }
            }
        }
    }
}

/// The layer that looks after a Secret: its own, or that of the store whose binding it is.
fn layer_of_secret(context: &Context, secret: &SecretMeta) -> Option<Place> {
    let namespace = secret.namespace()?;
    let owner = secret.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    match owner.kind.as_str() {
        "DataLayer" => Some((namespace, owner.name.clone())),
        "SessionStore" => context.index.layer_of(&(namespace, owner.name.clone())),
        _ => None,
    }
}
