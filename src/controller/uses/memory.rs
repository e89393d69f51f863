//! What is remembered of the uses and their layers from one pass to the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::layer_counts::LayerCounts;
use crate::api::data_layer_status::Tenant;
use crate::model::NodeId;
use crate::report::uses::LibraryTrouble;

/// Function libraries are loaded this far apart: changes of many uses come together.
const GATHERED: Duration = Duration::from_secs(1);
/// How long a proof of a user's rights holds. They are compared as text in every pass. (A proof is some 70 questions, some 0.3 ms of
/// a server's time: 500 uses cost it a seventh of a second in five minutes.)
pub(in crate::controller) const PROOF_HOLDS: Duration = Duration::from_mins(5);

/// What is remembered of the uses and their layers while this process leads. All of it can be found out again.
#[derive(Default)]
pub struct Memory {
    pub(super) tenants: Mutex<BTreeMap<String, Stored>>,
    pub(super) proofs: Mutex<BTreeMap<String, Proof>>,
    pub(in crate::controller) application: Mutex<BTreeMap<(String, NodeId, &'static str), Proof>>,
    loads: Mutex<BTreeMap<String, Instant>>,
    pub(super) proven: Mutex<BTreeMap<String, (String, String)>>,
    pub(super) refusals: Mutex<BTreeMap<String, String>>,
    pub(super) failed_loads: Mutex<BTreeMap<String, FailedLoad>>,
    pub(super) counts: Mutex<BTreeMap<String, LayerCounts>>,
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
pub(super) type Stored = (Option<String>, Vec<Tenant>);

/// Who was asked what, when, and what was wrong.
pub(in crate::controller) type Proof = (String, Instant, Vec<String>);

pub(in crate::controller) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every use of these maps is one call: none is left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Forgets uses and layers that are gone.
    pub fn retain(&self, lives: impl Fn(&str) -> bool) {
        locked(&self.tenants).retain(|uid, _| lives(uid));
        locked(&self.proofs).retain(|uid, _| lives(uid));
        locked(&self.application).retain(|(uid, ..), _| lives(uid));
        locked(&self.proven).retain(|uid, _| lives(uid));
        locked(&self.loads).retain(|uid, _| lives(uid));
        locked(&self.refusals).retain(|uid, _| lives(uid));
        locked(&self.failed_loads).retain(|uid, _| lives(uid));
        locked(&self.counts).retain(|uid, _| lives(uid));
    }

    /// What the API server said of the last change of a use's dedicated layer; `None`: it took it.
    pub fn layer_change(&self, use_uid: &str, refusal: Option<String>) {
        let mut refusals = locked(&self.refusals);
        match refusal {
            Some(words) => _ = refusals.insert(use_uid.to_owned(), words),
            None => _ = refusals.remove(use_uid),
        }
    }

    /// A library was loaded on the layer. Its counters were read before.
    pub fn loaded(&self, layer_uid: &str) {
        if let Some(told) = locked(&self.counts).get_mut(layer_uid) {
            told.asked = None;
        }
        locked(&self.loads).insert(layer_uid.to_owned(), Instant::now());
    }

    /// Whether a library was loaded on the layer a moment ago.
    pub fn is_gathering(&self, layer_uid: &str) -> bool {
        locked(&self.loads).get(layer_uid).is_some_and(|loaded| loaded.elapsed() < GATHERED)
    }
}
