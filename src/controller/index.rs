//! Which session stores name which layer, kept by the watch of the stores: no pass walks the stores of the whole cluster.
//!
//! The watch changes the index before it fills its own store, so a store that a pass can find is in the index already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use super::watches::WatchedStore;

/// Namespace and name of an object.
pub type Place = (String, String);

/// The index.
#[derive(Debug, Default)]
pub struct Index(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    entries: Entries,
    /// The entries of a list that has not come to its end.
    listed: Entries,
}

#[derive(Debug, Default)]
struct Entries {
    layers: BTreeMap<Place, Place>,
    stores: BTreeMap<Place, BTreeSet<Place>>,
    unreadable: BTreeSet<Place>,
}

impl Entries {
    fn enter(&mut self, store: &WatchedStore) {
        let place = place_of(store);
        self.leave(&place);
        if store.0.is_err() {
            self.unreadable.insert(place.clone());
        }
        if let Some(layer) = store.layer() {
            self.stores.entry(layer.clone()).or_default().insert(place.clone());
            self.layers.insert(place, layer);
        }
    }

    fn leave(&mut self, place: &Place) {
        self.unreadable.remove(place);
        if let Some(layer) = self.layers.remove(place)
            && let Some(stores) = self.stores.get_mut(&layer)
        {
            stores.remove(place);
            if stores.is_empty() {
                self.stores.remove(&layer);
            }
        }
    }
}

fn place_of(store: &WatchedStore) -> Place {
    (store.namespace().unwrap_or_default(), store.name_any())
}

impl Index {
    /// Takes in one event of the watch.
    pub fn note(&self, event: &Event<WatchedStore>) {
        let mut known = self.lock();
        match event {
            Event::Init => known.listed = Entries::default(),
            Event::InitApply(store) => known.listed.enter(store),
            Event::InitDone => known.entries = std::mem::take(&mut known.listed),
            Event::Apply(store) => known.entries.enter(store),
            Event::Delete(store) => known.entries.leave(&place_of(store)),
        }
    }

    /// The stores that name a layer.
    pub fn stores_of(&self, layer: &Place) -> Vec<Place> {
        self.lock().entries.stores.get(layer).into_iter().flatten().cloned().collect()
    }

    /// The layer that a store names; `None`: there is no such store, or what it names cannot be read.
    pub fn layer_of(&self, store: &Place) -> Option<Place> {
        self.lock().entries.layers.get(store).cloned()
    }

    /// Layers of other namespaces that the stores of a namespace name.
    pub fn foreign_layers_of(&self, namespace: &str) -> BTreeSet<Place> {
        let known = self.lock();
        let stores = known.entries.layers.range((namespace.to_owned(), String::new())..);
        let own = stores.take_while(|((of, _), _)| of == namespace);
        own.map(|(_, layer)| layer.clone()).filter(|layer| layer.0 != namespace).collect()
    }

    /// Stores that cannot be read.
    pub fn unreadable(&self) -> Vec<Place> {
        self.lock().entries.unreadable.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn store(namespace: &str, name: &str, spec: &Value) -> WatchedStore {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name, "uid": name}, "spec": spec}))
            .unwrap()
    }

    fn place(namespace: &str, name: &str) -> Place {
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn a_layer_finds_its_stores_and_a_namespace_the_layers_elsewhere() {
        let index = Index::default();
        let named = json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": "data"}});
        index.note(&Event::Apply(store("shop", "web", &named)));
        index.note(&Event::Apply(store("shop", "api", &json!({"idleTimeout": "30m"}))));
        index.note(&Event::Apply(store("shopping", "web", &named)));
        assert_eq!(index.stores_of(&place("data", "shared")), [place("shop", "web"), place("shopping", "web")]);
        assert_eq!(index.layer_of(&place("shop", "api")), Some(place("shop", "api-sessions")));
        assert_eq!(index.foreign_layers_of("shop"), [place("data", "shared")].into());
        index.note(&Event::Delete(store("shop", "web", &named)));
        assert_eq!(index.stores_of(&place("data", "shared")), [place("shopping", "web")]);
        assert!(index.foreign_layers_of("shop").is_empty());
    }

    #[test]
    fn an_unreadable_store_is_found_under_the_layer_that_it_names() {
        let index = Index::default();
        let later = json!({"idleTimeout": 7, "layer": {"name": "shared", "namespace": "data"}});
        index.note(&Event::Apply(store("shop", "web", &later)));
        assert_eq!(index.unreadable(), [place("shop", "web")]);
        assert_eq!(index.stores_of(&place("data", "shared")), [place("shop", "web")]);
        let corrected = json!({"idleTimeout": "7m", "layer": {"name": "shared", "namespace": "data"}});
        index.note(&Event::Apply(store("shop", "web", &corrected)));
        assert!(index.unreadable().is_empty());
        index.note(&Event::Apply(store("shop", "web", &json!({"idleTimeout": "7m", "layer": {"name": 5}}))));
        assert_eq!((index.unreadable(), index.layer_of(&place("shop", "web"))), (vec![place("shop", "web")], None));
    }

    #[test]
    fn a_list_counts_once_it_is_complete() {
        let index = Index::default();
        let spec = json!({"idleTimeout": "30m"});
        index.note(&Event::Apply(store("shop", "old", &spec)));
        index.note(&Event::Init);
        index.note(&Event::InitApply(store("shop", "new", &spec)));
        assert!(index.layer_of(&place("shop", "old")).is_some() && index.layer_of(&place("shop", "new")).is_none());
        index.note(&Event::InitDone);
        assert!(index.layer_of(&place("shop", "old")).is_none() && index.layer_of(&place("shop", "new")).is_some());
    }
}
