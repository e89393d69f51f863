//! What is woken by which change: a use's layer by the use, a layer's uses by the layer, the layers that the uses of a
//! namespace name by its labels, and the layer of a Secret by an edit of it.

use std::collections::BTreeMap;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::super::context::Context;
use super::super::watches::{NamespaceMeta, SecretMeta, WatchedLayer, WatchedUse};
use super::index::{Place, UsePlace};
use crate::model::UseKind;

/// What of an object makes others look: not its status.
type Version = (Option<i64>, bool);

/// What was last seen of the objects of one kind, by UID.
#[derive(Default)]
struct SeenVersions(BTreeMap<String, Version>);

impl SeenVersions {
    fn is_news(&mut self, meta: &kube::core::ObjectMeta) -> bool {
        let version = (meta.generation, meta.deletion_timestamp.is_some());
        self.0.insert(meta.uid.clone().unwrap_or_default(), version) != Some(version)
    }

    fn forget(&mut self, meta: &kube::core::ObjectMeta) {
        self.0.remove(meta.uid.as_deref().unwrap_or_default());
    }
}

/// What the watches tell.
pub(in crate::controller) struct Streams {
    pub(in crate::controller) layers: UnboundedReceiver<WatchedLayer>,
    pub(in crate::controller) uses: UnboundedReceiver<WatchedUse>,
    pub(in crate::controller) namespaces: BoxStream<'static, NamespaceMeta>,
    pub(in crate::controller) secrets: BoxStream<'static, SecretMeta>,
}

/// Relays until the process stops leading.
pub(in crate::controller) async fn relay(
    context: &Context,
    mut streams: Streams,
    to_layers: UnboundedSender<ObjectRef<WatchedLayer>>,
    to_uses: BTreeMap<UseKind, UnboundedSender<ObjectRef<WatchedUse>>>,
) {
    let (mut seen_layers, mut seen_uses) = (SeenVersions::default(), SeenVersions::default());
    // The receiver is dropped during shutdown.
    let wake_layer = |(namespace, name): Place| {
        let _ = to_layers.unbounded_send(ObjectRef::new(&name).within(&namespace));
    };
    let wake_use = |(kind, (namespace, name)): UsePlace| {
        if let Some(sender) = to_uses.get(&kind) {
            let _ = sender.unbounded_send(ObjectRef::new_with(&name, kind).within(&namespace));
        }
    };
    loop {
        futures::select! {
            layer = streams.layers.next().fuse() => {
                let Some(layer) = layer else { return };
                let place = (layer.namespace().unwrap_or_default(), layer.name_any());
                let is_there = context.layer(&place.0, &place.1).is_some();
                if seen_layers.is_news(kube::Resource::meta(&layer)) || !is_there {
                    context.index.uses_of(&place).into_iter().for_each(&wake_use);
                }
                if !is_there {
                    seen_layers.forget(kube::Resource::meta(&layer));
                }
            }
            changed = streams.uses.next().fuse() => {
                let Some(changed) = changed else { return };
                let place = (changed.kind(), (changed.namespace().unwrap_or_default(), changed.name_any()));
                let is_there = context.declared_use(&place).is_some();
                if (seen_uses.is_news(kube::Resource::meta(&changed)) || !is_there)
                    && let Some(layer) = changed.layer()
                {
                    wake_layer(layer);
                }
                if !is_there {
                    seen_uses.forget(kube::Resource::meta(&changed));
                }
            }
            namespace = streams.namespaces.next().fuse() => {
                let Some(namespace) = namespace else { return };
                context.index.foreign_layers_of(&namespace.name_any()).into_iter().for_each(wake_layer);
            }
            secret = streams.secrets.next().fuse() => {
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

/// The layer that looks after a Secret: its own, or that of the use whose binding it is.
fn layer_of_secret(context: &Context, secret: &SecretMeta) -> Option<Place> {
    let namespace = secret.namespace()?;
    let owner = secret.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    match owner.kind.as_str() {
        "DataLayer" => Some((namespace, owner.name.clone())),
        kind => context.index.layer_of(&(UseKind::of(kind)?, (namespace, owner.name.clone()))),
    }
}
