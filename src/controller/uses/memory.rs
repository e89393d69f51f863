//! What is remembered of the uses and their layers from one pass to the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::layer_counts::LayerCounts;
use super::load_pauses::LoadPauses;
use crate::api::data_layer_status::Tenant;
use crate::model::{NodeId, Policy};
use crate::per_object::PerObject;
use crate::report::uses::LibraryTrouble;
use crate::validate::uses::tenancy::Emptied;

/// Function libraries are loaded this far apart: changes of many uses come together.
const GATHERED: Duration = Duration::from_secs(1);
/// How long a proof of a user's rights holds. They are compared as text in every pass. (A proof is some 70 questions, some 0.3 ms of
/// a server's time: 500 uses cost it a seventh of a second in five minutes.)
pub(in crate::controller) const PROOF_HOLDS: Duration = Duration::from_mins(5);

/// What is remembered of the uses and their layers while this process leads. All of it can be found out again.
#[derive(Default)]
pub(crate) struct Memory {
    pub(super) tenants: PerObject<StoredTenants>,
    pub(super) proofs: PerObject<Proof>,
    /// Of a layer's uses that left: which prefixes the last audit found empty.
    pub(super) emptied: PerObject<Emptied>,
    /// Of a layer's users, by node and user.
    pub(in crate::controller) application: PerObject<BTreeMap<(NodeId, &'static str), Proof>>,
    /// What each use was admitted with last: it stays in force while the object cannot be read.
    pub(super) policies: PerObject<Policy>,
    /// Uses over which a pass was made: whether their own layers are as they want them was looked at.
    layers_kept: PerObject<()>,
    loads: PerObject<Instant>,
    /// The libraries that this process loaded on each layer, the last two of each name.
    loaded: PerObject<Vec<LoadedLibrary>>,
    pub(super) proven: PerObject<(String, String)>,
    refusals: PerObject<String>,
    pub(super) failed_loads: PerObject<FailedLoad>,
    /// Of each layer.
    pub(super) load_pauses: PerObject<LoadPauses>,
    pub(super) counts: PerObject<LayerCounts>,
}

/// A library that was loaded, and the policies that it holds.
#[derive(Clone, Debug)]
pub(super) struct LoadedLibrary {
    pub(super) name: String,
    pub(super) digest: String,
    /// Digest of the policy of each use, by the use's UID.
    pub(super) policies: BTreeMap<String, String>,
}

/// A user's library that a primary did not load: which source, by which process next to which libraries, and until when that counts.
#[derive(Clone)]
pub(super) struct FailedLoad {
    pub(super) digest: String,
    pub(super) process: String,
    pub(super) others: BTreeMap<String, String>,
    pub(super) until: Instant,
    pub(super) trouble: LibraryTrouble,
}

/// A list that this process stored, and the version of the layer that the watch showed at that time.
pub(super) type StoredTenants = (Option<String>, Vec<Tenant>);

/// Who was asked what, when, and what was wrong.
pub(in crate::controller) type Proof = (String, Instant, Vec<String>);

impl Memory {
    /// Forgets uses and layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        let Self {
            tenants,
            proofs,
            emptied,
            application,
            policies,
            layers_kept,
            loads,
            loaded,
            proven,
            refusals,
            failed_loads,
            load_pauses,
            counts,
        } = self;
        tenants.retain(&lives);
        proofs.retain(&lives);
        emptied.retain(&lives);
        application.retain(&lives);
        policies.retain(&lives);
        layers_kept.retain(&lives);
        loads.retain(&lives);
        loaded.retain(&lives);
        proven.retain(&lives);
        refusals.retain(&lives);
        failed_loads.retain(&lives);
        load_pauses.retain(&lives);
        counts.retain(&lives);
    }

    /// What the API server said of the last change of a use's dedicated layer; `None`: it took it.
    pub(crate) fn layer_change(&self, use_uid: &str, refusal: Option<String>) {
        match refusal {
            Some(words) => self.refusals.insert(use_uid, words),
            None => _ = self.refusals.remove(use_uid),
        }
    }

    /// A pass over the use has ended. Whether it was the first.
    pub(super) fn layer_was_kept(&self, use_uid: &str) -> bool {
        self.layers_kept.lock().insert(use_uid.to_owned(), ()).is_none()
    }

    /// Whether a pass over the use has ended.
    pub(super) fn is_layer_kept(&self, use_uid: &str) -> bool {
        self.layers_kept.get(use_uid).is_some()
    }

    /// The same, as it was told last.
    pub(super) fn refusal(&self, use_uid: &str) -> Option<String> {
        self.refusals.get(use_uid)
    }

    /// A library was loaded on the layer. Its counters were read before.
    pub(crate) fn loaded(&self, layer_uid: &str) {
        if let Some(told) = self.counts.lock().get_mut(layer_uid) {
            told.asked = None;
        }
        self.loads.insert(layer_uid, Instant::now());
    }

    /// Remembers what a library holds that was loaded.
    pub(super) fn holds(&self, layer_uid: &str, library: LoadedLibrary) {
        let mut loaded = self.loaded.lock();
        let known = loaded.entry(layer_uid.to_owned()).or_default();
        known.retain(|it| it.name != library.name || it.digest != library.digest);
        let of_name: Vec<usize> = (0..known.len()).filter(|at| known[*at].name == library.name).collect();
        // The one before may still be what a primary answers for that was asked a moment ago.
        if let [first, _, ..] = of_name.as_slice() {
            known.remove(*first);
        }
        known.push(library);
    }

    /// Whether a library with this digest was loaded on the layer, and held this policy of the use.
    pub(super) fn is_held(&self, layer_uid: &str, library: &str, digest: &str, use_uid: &str, policy: &str) -> bool {
        let loaded = self.loaded.lock();
        let mut known = loaded.get(layer_uid).into_iter().flatten();
        known.any(|it| {
            it.name == library && it.digest == digest && it.policies.get(use_uid).is_some_and(|held| held == policy)
        })
    }

    /// Whether a library was loaded on the layer a moment ago.
    pub(crate) fn is_gathering(&self, layer_uid: &str) -> bool {
        self.loads.get(layer_uid).is_some_and(|loaded| loaded.elapsed() < GATHERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While uses are created, the library that is wanted is newer than the one that was loaded in each pass.
    #[test]
    fn a_policy_counts_as_loaded_by_the_last_two_libraries_that_hold_it() {
        let memory = Memory::default();
        let load = |digest: &str, uses: &[&str]| {
            let policies = uses.iter().map(|uid| ((*uid).to_owned(), "p1".to_owned())).collect();
            memory.holds("layer", LoadedLibrary { name: "lib".to_owned(), digest: digest.to_owned(), policies });
        };
        let is_held = |digest: &str, uid: &str, policy: &str| memory.is_held("layer", "lib", digest, uid, policy);
        load("d1", &["a"]);
        load("d2", &["a", "b"]);
        assert!(is_held("d1", "a", "p1") && is_held("d2", "b", "p1"));
        assert!(!is_held("d1", "b", "p1"), "it came later");
        assert!(!is_held("d2", "a", "p2"), "its policy changed since");
        assert!(!memory.is_held("other", "lib", "d2", "a", "p1") && !memory.is_held("layer", "other", "d2", "a", "p1"));
        load("d2", &["a", "b"]);
        load("d3", &["a", "b"]);
        assert!(!is_held("d1", "a", "p1") && is_held("d2", "a", "p1") && is_held("d3", "a", "p1"));
        memory.retain(|_| false);
        assert!(!is_held("d3", "a", "p1"));
    }
}
