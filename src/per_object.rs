//! What a process remembers of each object, by its UID, until the object is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value for each of many objects. All of it can be found out again.
#[derive(Debug)]
pub(crate) struct PerObject<V>(Mutex<BTreeMap<String, V>>);

impl<V> Default for PerObject<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> PerObject<V> {
    /// The values. Each use of them is one call, so one that panics leaves no value half changed: they are used on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, uid: &str) -> Option<V>
    where
        V: Clone,
    {
        self.lock().get(uid).cloned()
    }

    pub(crate) fn insert(&self, uid: &str, value: V) {
        self.lock().insert(uid.to_owned(), value);
    }

    pub(crate) fn remove(&self, uid: &str) -> Option<V> {
        self.lock().remove(uid)
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| lives(uid));
    }
}
