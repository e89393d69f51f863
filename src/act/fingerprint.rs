//! Which objects are still as we applied them: what makes an idle layer cost no write.
//!
//! Memory only. After a start nothing is remembered, so each object is applied once; the API server makes a write of an
//! apply only if it changes something.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kube::Resource;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What was wanted when an object was last applied, and what it was then.
#[derive(Debug)]
struct Fingerprint {
    desired: String,
    live: String,
    /// `resourceVersion` of the live object that was found to be so last: the same one is so still.
    version: Option<String>,
    /// When it was asked for last.
    used: Instant,
}

impl Fingerprint {
    fn is_live(&mut self, live: &(impl Serialize + Resource)) -> bool {
        self.used = Instant::now();
        let version = &live.meta().resource_version;
        let is_known = version.is_some() && *version == self.version;
        if !is_known {
            if self.live != fingerprint(live) {
                return false;
            }
            self.version.clone_from(version);
        }
        true
    }
}

/// Remembers what was applied.
#[derive(Debug, Default)]
pub(crate) struct Fingerprints(Mutex<BTreeMap<Key, Fingerprint>>);

impl Fingerprints {
    /// Whether the live object is what it was right after `desired` was applied.
    pub(crate) fn is_as_applied(
        &self,
        key: &Key,
        desired: &impl Serialize,
        live: &(impl Serialize + Resource),
    ) -> bool {
        self.with(|known| {
            known.get_mut(key).is_some_and(|known| known.is_live(live) && known.desired == fingerprint(desired))
        })
    }

    /// Whether `desired` is what was applied last.
    pub(crate) fn is_last_applied(&self, key: &Key, desired: &impl Serialize) -> bool {
        self.with(|known| known.get(key).is_some_and(|known| known.desired == fingerprint(desired)))
    }

    /// Whether the live object is what it was right after our last apply, whatever that was. Not so for one that we have
    /// not applied since our start.
    pub(crate) fn is_untouched(&self, key: &Key, live: &(impl Serialize + Resource)) -> bool {
        self.with(|known| known.get_mut(key).is_some_and(|known| known.is_live(live)))
    }

    /// Remembers an apply and the API server's answer to it.
    pub(crate) fn remember(&self, key: Key, desired: &impl Serialize, live: &(impl Serialize + Resource)) {
        let remembered = Fingerprint {
            desired: fingerprint(desired),
            live: fingerprint(live),
            version: live.meta().resource_version.clone(),
            used: Instant::now(),
        };
        self.with(|known| known.insert(key, remembered));
    }

    /// Forgets what was not asked for in this time: each object that is there is asked for in each pass.
    pub(crate) fn forget_unused(&self, since: Duration) {
        self.with(|known| known.retain(|_, known| known.used.elapsed() < since));
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.with(|known| known.remove(key));
    }

    fn with<T>(&self, doing: impl FnOnce(&mut BTreeMap<Key, Fingerprint>) -> T) -> T {
        // A thread that panicked while holding the lock leaves at worst a missing entry, which costs one apply.
        doing(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Fields of metadata that change although the object was not changed.
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
    hex::encode(Sha256::digest(value.to_string()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key { kind: "Service".to_owned(), namespace: "a".to_owned(), name: "b".to_owned() }
    }

    /// An object as the API server has it.
    fn live(version: &str, value: &str) -> ConfigMap {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        let data = BTreeMap::from([("a".to_owned(), value.to_owned())]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn an_object_that_was_not_changed_is_as_applied() {
        let known = Fingerprints::default();
        let desired = json!({"spec": {"a": 1}});
        known.remember(key(), &desired, &live("1", "x"));
        assert!(known.is_as_applied(&key(), &desired, &live("1", "x")));
        // Its status changed, or its bookkeeping.
        assert!(known.is_as_applied(&key(), &desired, &live("2", "x")));
        assert!(known.is_untouched(&key(), &live("2", "x")));
    }

    #[test]
    fn what_is_not_asked_for_is_forgotten() {
        let known = Fingerprints::default();
        known.remember(key(), &json!({}), &live("1", "x"));
        known.forget_unused(Duration::from_hours(1));
        assert!(known.is_as_applied(&key(), &json!({}), &live("1", "x")));
        known.forget_unused(Duration::ZERO);
        assert!(!known.is_as_applied(&key(), &json!({}), &live("1", "x")));
    }

    #[test]
    fn a_hand_edit_and_another_specification_are_both_noticed() {
        let known = Fingerprints::default();
        let desired = json!({"spec": {"a": 1}});
        known.remember(key(), &desired, &live("1", "x"));
        assert!(!known.is_as_applied(&key(), &json!({"spec": {"a": 2}}), &live("1", "x")));
        for edited in ["2", "3"] {
            assert!(!known.is_as_applied(&key(), &desired, &live(edited, "y")));
            assert!(!known.is_untouched(&key(), &live(edited, "y")));
        }
        // It was set back.
        assert!(known.is_as_applied(&key(), &desired, &live("4", "x")));
    }

    #[test]
    fn nothing_is_as_applied_after_a_start() {
        assert!(!Fingerprints::default().is_untouched(&key(), &live("1", "x")));
    }
}
