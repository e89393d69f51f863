//! Which objects are still as we applied them: what makes an idle layer cost no write.
//!
//! Memory only. After a start nothing is remembered, so each object is applied once; the API server makes a write of an
//! apply only if it changes something.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What was wanted when an object was last applied, and what it was then.
#[derive(Debug)]
struct Remembered {
    desired: String,
    live: String,
    /// When it was asked for last.
    used: Instant,
}

/// Remembers what was applied.
#[derive(Debug, Default)]
pub struct Fingerprints(Mutex<BTreeMap<Key, Remembered>>);

impl Fingerprints {
    /// Whether the live object is what it was right after `desired` was applied.
    pub fn is_as_applied(&self, key: &Key, desired: &impl Serialize, live: &impl Serialize) -> bool {
        self.with(|known| {
            known.get_mut(key).is_some_and(|known| {
                known.used = Instant::now();
                known.desired == fingerprint(desired) && known.live == fingerprint(live)
            })
        })
    }

    /// Whether the live object is what it was right after our last apply, whatever that was. Not so for one that we have
    /// not applied since our start.
    pub fn is_untouched(&self, key: &Key, live: &impl Serialize) -> bool {
        self.with(|known| {
            known.get_mut(key).is_some_and(|known| {
                known.used = Instant::now();
                known.live == fingerprint(live)
            })
        })
    }

    /// Remembers an apply and the API server's answer to it.
    pub fn remember(&self, key: Key, desired: &impl Serialize, live: &impl Serialize) {
        let remembered = Remembered { desired: fingerprint(desired), live: fingerprint(live), used: Instant::now() };
        self.with(|known| known.insert(key, remembered));
    }

    /// Forgets what nobody asked for in this time: each object that is there is asked for in each pass.
    pub fn forget_unused(&self, since: Duration) {
        self.with(|known| known.retain(|_, known| known.used.elapsed() < since));
    }

    /// Forgets an object.
    pub fn forget(&self, key: &Key) {
        self.with(|known| known.remove(key));
    }

    fn with<T>(&self, doing: impl FnOnce(&mut BTreeMap<Key, Remembered>) -> T) -> T {
        // A thread that panicked while holding the lock leaves at worst a missing entry, which costs one apply.
        doing(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Fields of metadata that change although nobody changed the object.
const BOOKKEEPING: [&str; 3] = ["resourceVersion", "managedFields", "generation"];

/// SHA-256 of an object without its status and without the API server's bookkeeping.
fn fingerprint(object: &impl Serialize) -> String {
    // Serialising our own types cannot fail; if it did, the object would merely never count as applied.
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            for field in BOOKKEEPING {
                metadata.remove(field);
            }
        }
    }
    super::secrets::hexadecimal(&Sha256::digest(value.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key { kind: "Service".to_owned(), namespace: "a".to_owned(), name: "b".to_owned() }
    }

    #[test]
    fn an_object_that_nobody_changed_is_as_applied() {
        let known = Fingerprints::default();
        let desired = json!({"spec": {"a": 1}});
        known.remember(key(), &desired, &json!({"metadata": {"resourceVersion": "1"}, "spec": {"a": 1}, "status": 1}));
        let live = json!({"metadata": {"resourceVersion": "2"}, "spec": {"a": 1}, "status": 2});
        assert!(known.is_as_applied(&key(), &desired, &live));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let known = Fingerprints::default();
        known.remember(key(), &json!({}), &json!({}));
        known.forget_unused(Duration::from_hours(1));
        assert!(known.is_as_applied(&key(), &json!({}), &json!({})));
        known.forget_unused(Duration::ZERO);
        assert!(!known.is_as_applied(&key(), &json!({}), &json!({})));
    }

    #[test]
    fn a_hand_edit_and_another_wish_are_both_noticed() {
        let known = Fingerprints::default();
        let desired = json!({"spec": {"a": 1}});
        let live = json!({"spec": {"a": 1}});
        known.remember(key(), &desired, &live);
        assert!(!known.is_as_applied(&key(), &desired, &json!({"spec": {"a": 2}})));
        assert!(!known.is_as_applied(&key(), &json!({"spec": {"a": 2}}), &live));
        assert!(!known.is_untouched(&key(), &json!({"spec": {"a": 1}, "metadata": {"labels": {"x": "y"}}})));
    }

    #[test]
    fn nothing_is_as_applied_after_a_start() {
        assert!(!Fingerprints::default().is_untouched(&key(), &json!({})));
    }
}
