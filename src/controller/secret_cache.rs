//! Secrets as they were last read. A Secret is read again when the watch of their metadata says that it changed.
//!
//! Without that watch (the chart's `rbac.watchSecrets: false`) what was read is believed for some seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};

use super::watches::SecretMeta;
use crate::act::kube::key_of;
use crate::act::{self, Applied, Writer};
use crate::api::names;
use crate::failure::{Request, request};

/// How far the watch may lag behind what was read or written.
const LAG: Duration = Duration::from_secs(3);

/// Namespace and name.
type Key = (String, String);

/// Secrets as they were last read.
pub(crate) struct SecretCache {
    watch: Store<SecretMeta>,
    known: Mutex<BTreeMap<Key, CachedSecret>>,
}

/// What was read of one name.
#[derive(Clone)]
struct CachedSecret {
    /// `None`: there was none.
    secret: Option<Secret>,
    /// The resource version that the watch showed before that, or since then if it was this very Secret's. `None`: there was no
    /// watch.
    seen: Option<Version>,
    read: Instant,
    used: Instant,
}

/// What the watch says of a name.
enum WatchedVersion {
    /// The watch has not seen everything, or is not allowed.
    Blind,
    /// It has seen everything.
    At(Version),
}

/// A resource version; `None`: there is no Secret of this name with our label.
type Version = Option<String>;

impl CachedSecret {
    /// Whether it is still what the API server has. `cached_for`: how long it counts where no watch says.
    fn holds(&mut self, watched: WatchedVersion, cached_for: Duration) -> bool {
        match watched {
            WatchedVersion::Blind => self.read.elapsed() < cached_for,
            WatchedVersion::At(version) if version == version_of(self.secret.as_ref()) => {
                self.seen = Some(version);
                true
            }
            WatchedVersion::At(version) => {
                // A Secret with our label that the watch does not show: it lags, or the Secret came and went since.
                let may_lag = version.is_some() || !self.is_labelled() || self.read.elapsed() < LAG;
                self.seen == Some(version) && may_lag
            }
        }
    }

    /// Takes in that the watch has shown this object, and shows none now. If it is the Secret that is known, that one was deleted, and
    /// the watch does not lag. Both changes may arrive before the first of them is looked at.
    fn was_shown(&mut self, shown: &SecretMeta) {
        if self.secret.as_ref().is_some_and(|secret| secret.uid().is_some() && secret.uid() == shown.uid()) {
            self.seen = Some(version_of(self.secret.as_ref()));
        }
    }

    fn is_labelled(&self) -> bool {
        let label = self.secret.as_ref().and_then(|secret| secret.labels().get(names::LABEL_MANAGED_BY));
        label.is_some_and(|label| label == names::MANAGED_BY)
    }
}

fn version_of(secret: Option<&Secret>) -> Version {
    secret?.metadata.resource_version.clone()
}

impl SecretCache {
    /// A cache that has read nothing yet.
    pub(crate) fn new(watch: Store<SecretMeta>) -> Self {
        Self { watch, known: Mutex::default() }
    }

    /// A Secret, if it is known. The flag: whether that still holds.
    pub(crate) fn known(&self, namespace: &str, name: &str, cached_for: Duration) -> Option<(Option<Secret>, bool)> {
        let watched = self.watched(namespace, name);
        let mut all = self.lock();
        let known = all.get_mut(&key(namespace, name))?;
        known.used = Instant::now();
        let holds = known.holds(watched, cached_for);
        Some((known.secret.clone(), holds))
    }

    /// A Secret; the API server is asked only if what is known may not hold any more. While it cannot be read again, what was
    /// read before counts.
    pub(crate) async fn read(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        cached_for: Duration,
    ) -> Result<Option<Secret>, Request> {
        let known = match self.known(namespace, name, cached_for) {
            Some((secret, true)) => return Ok(secret),
            known => known,
        };
        // What the watch shows before the question: a change after it makes the answer old.
        let seen = self.seen(namespace, name);
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        match (request("read", &format!("Secret {namespace}/{name}"), api.get_opt(name)).await, known) {
            (Ok(secret), _) => {
                self.note(key(namespace, name), secret.clone(), seen);
                Ok(secret)
            }
            (Err(error), Some((secret, _))) => {
                tracing::debug!(error = %crate::telemetry::Chain(&error), "what was read before counts");
                Ok(secret)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Applies a Secret as [`Writer::apply`] does, and takes in the API server's answer.
    pub(crate) async fn apply(
        &self,
        writer: &Writer,
        secret: &Secret,
        live: Option<&Secret>,
    ) -> Result<Applied<Secret>, act::Error> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let seen = self.seen(&namespace, &name);
        let applied = writer.apply(secret, live).await;
        match &applied {
            Ok(Applied::Written(written)) => self.wrote(written, seen),
            Ok(Applied::Unchanged | Applied::Deleting) => {}
            // It may have been written all the same.
            Err(_) => {
                self.forget(&namespace, &name);
                writer.fingerprints().forget(&key_of(secret));
            }
        }
        applied
    }

    /// Takes in what the API server answered to a write of ours. `seen`: what the watch showed before it. What it shows afterwards may be a
    /// change that came after ours.
    fn wrote(&self, secret: &Secret, seen: Option<Version>) {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        self.note((namespace, name), Some(secret.clone()), seen);
    }

    /// Forgets what was read of a name.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&key(namespace, name));
    }

    /// Whether a change that the watch showed is one that was not read yet.
    pub(crate) fn is_news(&self, secret: &SecretMeta) -> bool {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let watched = self.watched(&namespace, &name);
        let mut all = self.lock();
        let Some(known) = all.get_mut(&(namespace, name)) else { return true };
        if matches!(watched, WatchedVersion::At(None)) {
            known.was_shown(secret);
        }
        !known.holds(watched, Duration::ZERO)
    }

    /// Forgets what was not asked for in this time.
    pub(crate) fn forget_unused(&self, time: Duration) {
        self.lock().retain(|_, known| known.used.elapsed() < time);
    }

    fn note(&self, key: Key, secret: Option<Secret>, seen: Option<Version>) {
        let now = Instant::now();
        self.lock().insert(key, CachedSecret { secret, seen, read: now, used: now });
    }

    fn watched(&self, namespace: &str, name: &str) -> WatchedVersion {
        match self.watch.wait_until_ready().now_or_never() {
            Some(Ok(())) => {
                let found = self.watch.get(&ObjectRef::new(name).within(namespace));
                WatchedVersion::At(found.and_then(|secret| secret.metadata.resource_version.clone()))
            }
            Some(Err(_)) | None => WatchedVersion::Blind,
        }
    }

    fn seen(&self, namespace: &str, name: &str) -> Option<Version> {
        match self.watched(namespace, name) {
            WatchedVersion::Blind => None,
            WatchedVersion::At(version) => Some(version),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, CachedSecret>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    const CACHED_FOR: Duration = Duration::from_mins(1);

    fn secret(version: &str) -> Secret {
        let labels = json!({names::LABEL_MANAGED_BY: names::MANAGED_BY});
        let metadata =
            json!({"namespace": "shop", "name": "web", "uid": "one", "resourceVersion": version, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn meta(version: &str) -> SecretMeta {
        serde_json::from_value(json!(secret(version))).unwrap()
    }

    fn holds(cache: &SecretCache) -> Option<bool> {
        cache.known("shop", "web", CACHED_FOR).map(|(_, holds)| holds)
    }

    #[test]
    fn a_secret_that_was_edited_deleted_or_made_is_read_again_and_one_that_was_not_is_not() {
        let (watch, mut writer) = reflector::store();
        let cache = SecretCache::new(watch);
        assert_eq!(holds(&cache), None, "never read");
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(meta("7")));
        writer.apply_watcher_event(&Event::InitDone);
        cache.note(key("shop", "web"), Some(secret("7")), Some(Some("7".to_owned())));
        assert_eq!(holds(&cache), Some(true));
        writer.apply_watcher_event(&Event::Apply(meta("8")));
        assert_eq!((holds(&cache), cache.is_news(&meta("8"))), (Some(false), true), "edited");
        cache.wrote(&secret("9"), Some(Some("8".to_owned())));
        assert_eq!(holds(&cache), Some(true), "the watch has not shown our own write yet");
        writer.apply_watcher_event(&Event::Apply(meta("9")));
        assert_eq!((holds(&cache), cache.is_news(&meta("9"))), (Some(true), false), "our own write is no news");
        writer.apply_watcher_event(&Event::Delete(meta("9")));
        assert_eq!(holds(&cache), Some(false), "deleted");
        cache.note(key("shop", "web"), None, Some(None));
        assert_eq!(holds(&cache), Some(true), "that there is none is known, too");
        writer.apply_watcher_event(&Event::Apply(meta("11")));
        assert_eq!(holds(&cache), Some(false), "made");
    }

    #[test]
    fn a_secret_that_we_made_is_missed_once_the_watch_has_shown_it_or_should_have() {
        let (watch, mut writer) = reflector::store();
        let cache = SecretCache::new(watch);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        cache.wrote(&secret("5"), Some(None));
        assert_eq!(holds(&cache), Some(true), "the watch has not shown it yet");
        cache.lock().get_mut(&key("shop", "web")).unwrap().read -= LAG;
        assert_eq!(holds(&cache), Some(false), "it came and went between two looks");
        cache.wrote(&secret("6"), Some(None));
        writer.apply_watcher_event(&Event::Apply(meta("6")));
        assert!(!cache.is_news(&meta("6")));
        writer.apply_watcher_event(&Event::Delete(meta("6")));
        assert_eq!(holds(&cache), Some(false), "deleted");
    }

    #[test]
    fn a_secret_that_is_deleted_before_its_creation_was_looked_at_is_missed_at_once() {
        let (watch, mut writer) = reflector::store();
        let cache = SecretCache::new(watch);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        cache.wrote(&secret("5"), Some(None));
        let mut of_before = meta("3");
        of_before.metadata.uid = Some("before".to_owned());
        assert!(!cache.is_news(&of_before), "the end of the one before is older than our write");
        writer.apply_watcher_event(&Event::Apply(meta("5")));
        writer.apply_watcher_event(&Event::Delete(meta("6")));
        assert!(cache.is_news(&meta("5")), "it was shown, and is gone");
        assert_eq!(holds(&cache), Some(false));
        assert!(cache.is_news(&meta("6")));
    }

    #[test]
    fn a_secret_whose_edit_was_not_shown_yet_holds_although_an_older_change_is_looked_at() {
        let (watch, mut writer) = reflector::store();
        let cache = SecretCache::new(watch);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(meta("5")));
        writer.apply_watcher_event(&Event::InitDone);
        cache.wrote(&secret("7"), Some(Some("5".to_owned())));
        assert!(!cache.is_news(&meta("5")), "our own write is on its way");
        assert_eq!(holds(&cache), Some(true));
    }

    /// What the watch showed as the answer arrived was taken for older than the write, for good: the Secret stayed as it was edited.
    #[test]
    fn a_secret_that_is_edited_before_the_answer_to_our_write_arrives_is_read_again() {
        let (watch, mut writer) = reflector::store();
        let cache = SecretCache::new(watch);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(meta("7")));
        writer.apply_watcher_event(&Event::InitDone);
        let seen = cache.seen("shop", "web");
        for version in ["8", "9"] {
            writer.apply_watcher_event(&Event::Apply(meta(version)));
        }
        cache.wrote(&secret("8"), seen);
        assert_eq!(holds(&cache), Some(false));
    }

    #[test]
    fn without_the_watch_what_was_read_is_cached_for_a_time() {
        let (watch, _writer) = reflector::store::<SecretMeta>();
        let cache = SecretCache::new(watch);
        cache.note(key("shop", "web"), Some(secret("7")), None);
        assert_eq!(cache.seen("shop", "web"), None);
        assert_eq!(holds(&cache), Some(true));
        assert!(!cache.known("shop", "web", Duration::ZERO).unwrap().1);
    }
}
