//! Which uses name which layer, kept by the watches of the uses: no pass walks the uses of the whole cluster.
//!
//! The watch changes the index before it fills its own store, so a store that a pass can find is in the index already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use super::super::watches::WatchedUse;
use crate::model::UseKind;

/// Namespace and name of an object.
pub(crate) type Place = (String, String);
/// Kind, namespace and name of a use.
pub(crate) type UsePlace = (UseKind, Place);

/// The index, kind by kind: the watch of each kind lists by itself.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<BTreeMap<UseKind, KindIndex>>);

#[derive(Debug, Default)]
struct KindIndex {
    entries: Entries,
    /// The entries of a list that has not come to its end.
    listed: Entries,
}

#[derive(Debug, Default)]
struct Entries {
    layers: BTreeMap<Place, Place>,
    uses: BTreeMap<Place, BTreeSet<Place>>,
    unreadable: BTreeSet<Place>,
}

impl Entries {
    fn enter(&mut self, watched: &WatchedUse) {
        let place = place_of(watched);
        self.leave(&place);
        if watched.0.is_err() {
            self.unreadable.insert(place.clone());
        }
        if let Some(layer) = watched.layer() {
            self.uses.entry(layer.clone()).or_default().insert(place.clone());
            self.layers.insert(place, layer);
        }
    }

    fn leave(&mut self, place: &Place) {
        self.unreadable.remove(place);
        if let Some(layer) = self.layers.remove(place)
            && let Some(uses) = self.uses.get_mut(&layer)
        {
            uses.remove(place);
            if uses.is_empty() {
                self.uses.remove(&layer);
            }
        }
    }
}

fn place_of(watched: &WatchedUse) -> Place {
    (watched.namespace().unwrap_or_default(), watched.name_any())
}

impl Index {
    /// Takes in one event of the watch of a kind.
    pub(crate) fn note(&self, kind: UseKind, event: &Event<WatchedUse>) {
        let mut kinds = self.lock();
        let known = kinds.entry(kind).or_default();
        match event {
            Event::Init => known.listed = Entries::default(),
            Event::InitApply(watched) => known.listed.enter(watched),
            Event::InitDone => known.entries = std::mem::take(&mut known.listed),
            Event::Apply(watched) => known.entries.enter(watched),
            Event::Delete(watched) => known.entries.leave(&place_of(watched)),
        }
    }

    pub(crate) fn uses_of(&self, layer: &Place) -> Vec<UsePlace> {
        let kinds = self.lock();
        let of_kind = |(kind, known): (&UseKind, &KindIndex)| {
            let places = known.entries.uses.get(layer).into_iter().flatten();
            places.map(|place| (*kind, place.clone())).collect::<Vec<_>>()
        };
        kinds.iter().flat_map(of_kind).collect()
    }

    /// The layer that a use names; `None`: there is no such use, or what it names cannot be read.
    pub(crate) fn layer_of(&self, (kind, place): &UsePlace) -> Option<Place> {
        self.lock().get(kind)?.entries.layers.get(place).cloned()
    }

    /// Layers of other namespaces that the uses of a namespace name.
    pub(crate) fn foreign_layers_of(&self, namespace: &str) -> BTreeSet<Place> {
        let kinds = self.lock();
        let mut layers = BTreeSet::new();
        for known in kinds.values() {
            let uses = known.entries.layers.range((namespace.to_owned(), String::new())..);
            let own = uses.take_while(|((of, _), _)| of == namespace);
            layers.extend(own.map(|(_, layer)| layer.clone()).filter(|layer| layer.0 != namespace));
        }
        layers
    }

    /// Uses that cannot be read.
    pub(crate) fn unreadable(&self) -> Vec<UsePlace> {
        let kinds = self.lock();
        let of_kind = |(kind, known): (&UseKind, &KindIndex)| {
            known.entries.unreadable.iter().map(|place| (*kind, place.clone())).collect::<Vec<_>>()
        };
        kinds.iter().flat_map(of_kind).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UseKind, KindIndex>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn store(namespace: &str, name: &str, spec: &Value) -> WatchedUse {
        serde_json::from_value(json!({"kind": "SessionStore", "metadata": {"namespace": namespace, "name": name, "uid": name}, "spec": spec}))
            .unwrap()
    }

    fn place(namespace: &str, name: &str) -> Place {
        (namespace.to_owned(), name.to_owned())
    }

    fn note(index: &Index, event: &Event<WatchedUse>) {
        index.note(UseKind::SessionStore, event);
    }

    fn the(namespace: &str, name: &str) -> UsePlace {
        (UseKind::SessionStore, place(namespace, name))
    }

    #[test]
    fn a_layer_finds_its_stores_and_a_namespace_the_layers_elsewhere() {
        let index = Index::default();
        let named = json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": "data"}});
        note(&index, &Event::Apply(store("shop", "web", &named)));
        note(&index, &Event::Apply(store("shop", "api", &json!({"idleTimeout": "30m"}))));
        note(&index, &Event::Apply(store("shopping", "web", &named)));
        assert_eq!(index.uses_of(&place("data", "shared")), [the("shop", "web"), the("shopping", "web")]);
        assert_eq!(index.layer_of(&the("shop", "api")), Some(place("shop", "api-sessions")));
        assert_eq!(index.foreign_layers_of("shop"), [place("data", "shared")].into());
        note(&index, &Event::Delete(store("shop", "web", &named)));
        assert_eq!(index.uses_of(&place("data", "shared")), [the("shopping", "web")]);
        assert!(index.foreign_layers_of("shop").is_empty());
    }

    #[test]
    fn an_unreadable_store_is_found_under_the_layer_that_it_names() {
        let index = Index::default();
        let later = json!({"idleTimeout": 7, "layer": {"name": "shared", "namespace": "data"}});
        note(&index, &Event::Apply(store("shop", "web", &later)));
        assert_eq!(index.unreadable(), [the("shop", "web")]);
        assert_eq!(index.uses_of(&place("data", "shared")), [the("shop", "web")]);
        let corrected = json!({"idleTimeout": "7m", "layer": {"name": "shared", "namespace": "data"}});
        note(&index, &Event::Apply(store("shop", "web", &corrected)));
        assert!(index.unreadable().is_empty());
        note(&index, &Event::Apply(store("shop", "web", &json!({"idleTimeout": "7m", "layer": {"name": 5}}))));
        assert_eq!((index.unreadable(), index.layer_of(&the("shop", "web"))), (vec![the("shop", "web")], None));
    }

    #[test]
    fn a_list_counts_once_it_is_complete() {
        let index = Index::default();
        let spec = json!({"idleTimeout": "30m"});
        note(&index, &Event::Apply(store("shop", "old", &spec)));
        note(&index, &Event::Init);
        note(&index, &Event::InitApply(store("shop", "new", &spec)));
        assert!(index.layer_of(&the("shop", "old")).is_some() && index.layer_of(&the("shop", "new")).is_none());
        note(&index, &Event::InitDone);
        assert!(index.layer_of(&the("shop", "old")).is_none() && index.layer_of(&the("shop", "new")).is_some());
    }
}
