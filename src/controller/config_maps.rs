//! ConfigMaps as they were last read. They are not watched: what was read is believed for a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;

use crate::api::name_rules::is_name_of_object;
use crate::failure::{Request, request};
use crate::telemetry::Chain;

/// How long what was read is believed.
const CACHED_FOR: Duration = Duration::from_secs(30);

/// Namespace, name and key.
type Key = (String, String, String);

/// What a ConfigMap has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// There is no such ConfigMap.
    NoConfigMap,
    /// It has no such key, or bytes that are no text.
    NoKey,
    Text(Arc<str>),
}

/// ConfigMaps as they were last read, one entry for each key that is used.
#[derive(Default)]
pub(crate) struct ConfigMaps(Mutex<BTreeMap<Key, CachedEntry>>);

#[derive(Clone)]
struct CachedEntry {
    entry: Entry,
    read: Instant,
    used: Instant,
}

impl ConfigMaps {
    /// What a ConfigMap has under a key, as it was at most [`CACHED_FOR`] ago. While it cannot be read again, what was read before
    /// counts.
    pub(crate) async fn read(&self, client: &Client, namespace: &str, name: &str, key: &str) -> Result<Entry, Request> {
        if !is_name_of_object(name) {
            return Ok(Entry::NoConfigMap);
        }
        let place = (namespace.to_owned(), name.to_owned(), key.to_owned());
        let known = {
            let mut all = self.lock();
            let known = all.get_mut(&place);
            known.map(|known| {
                known.used = Instant::now();
                known.clone()
            })
        };
        if let Some(known) = &known
            && known.read.elapsed() < CACHED_FOR
        {
            return Ok(known.entry.clone());
        }
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let entry = match (request("read", &format!("ConfigMap {namespace}/{name}"), api.get_opt(name)).await, known) {
            (Ok(found), _) => entry_of(found, key),
            (Err(error), Some(known)) => {
                tracing::debug!(error = %Chain(&error), "what was read before counts");
                known.entry
            }
            (Err(error), None) => return Err(error),
        };
        let now = Instant::now();
        self.lock().insert(place, CachedEntry { entry: entry.clone(), read: now, used: now });
        Ok(entry)
    }

    /// Forgets what was not asked for in this time.
    pub(crate) fn forget_unused(&self, time: Duration) {
        self.lock().retain(|_, known| known.used.elapsed() < time);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, CachedEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_of(found: Option<ConfigMap>, key: &str) -> Entry {
    let Some(found) = found else { return Entry::NoConfigMap };
    let text = found.data.unwrap_or_default().remove(key);
    text.map_or(Entry::NoKey, |text| Entry::Text(text.into()))
}
