//! What a session store's own fields say, judged by themselves. How stores get on with their layer and with each other:
//! [`super::tenancy`].

use std::time::Duration;

use kube::ResourceExt as _;

use super::{Fault, small};
use crate::api::names::{LONGEST_STORE_NAME, sessions_layer};
use crate::api::session_store::{ExceedChoice, SessionStore};
use crate::model::session_policy::{OnExceed, SessionPolicy};

/// The longest absolute lifetime where none is given: NIST SP 800-63B, section 2.1.3, asks for a new login after 30 days.
const ABSOLUTE_LIFETIME: Duration = Duration::from_hours(720);
/// A year and a day: what CEL bounds the idle timeout with.
const LONGEST_IDLE: Duration = Duration::from_hours(8_784);
/// Ten years and some: what CEL bounds the absolute lifetime with.
const LONGEST_LIFETIME: Duration = Duration::from_hours(87_840);
/// A week: what CEL bounds the grace with.
const LONGEST_GRACE: Duration = Duration::from_hours(168);
/// How long old credentials stay valid at most where nothing is said.
const ROTATION_GRACE: Duration = Duration::from_hours(1);

/// A store whose every field is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedStore {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What the functions carry out.
    pub policy: SessionPolicy,
    /// Replicas that should confirm a revocation.
    pub wait_replicas: u16,
    /// Which credentials are wanted.
    pub rotation: u32,
    /// How long the ones before stay valid at most, milliseconds.
    pub rotation_grace_milliseconds: u64,
}

/// Namespace and name of the layer that a store wants.
pub fn layer_of(store: &SessionStore) -> (String, String) {
    let own = store.namespace().unwrap_or_default();
    match store.spec.layer.as_ref().and_then(|layer| Some((layer, layer.name.clone()?))) {
        Some((layer, name)) => (layer.namespace.clone().unwrap_or(own), name),
        None => (own, sessions_layer(&store.name_any())),
    }
}

/// Whether the store has a layer of its own.
pub fn is_dedicated(store: &SessionStore) -> bool {
    store.spec.layer.as_ref().is_none_or(|layer| layer.name.is_none())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Judges a store by itself. `replicas`: of its layer.
pub fn validate(store: &SessionStore, replicas: u16) -> Result<ValidatedStore, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut fault = |field: &'static str, problem: &str| faults.push(Fault { field, problem: problem.to_owned() });
    let spec = &store.spec;
    let (name, namespace) = (store.name_any(), store.namespace().unwrap_or_default());
    if name.len() > LONGEST_STORE_NAME || !is_name(&name) {
        fault("metadata.name", "begins with a letter, holds only a-z, 0-9 and '-', and has at most 31 characters");
    }
    let prefix = spec.key_prefix.clone().unwrap_or_else(|| format!("{name}:"));
    if !is_prefix(&prefix) {
        fault(
            "spec.keyPrefix",
            "begins with a letter or digit, holds only letters, digits, '-', '_', '.' and ':', has at most 64 characters, and ends with ':'",
        );
    }
    let mut bounded = |field: &'static str, given: Duration, least: Duration, most: Duration| {
        if given < least || given > most {
            fault(field, &format!("is not from {least:?} to {most:?}"));
        }
        given
    };
    let second = Duration::from_secs(1);
    // A negative duration of Kubernetes reads as a positive one here: the sign is judged first.
    let plain = |duration: kube::core::Duration| if duration.is_negative() { Duration::MAX } else { duration.into() };
    let idle = bounded("spec.idleTimeout", plain(spec.idle_timeout), second, LONGEST_IDLE);
    let absolute = spec.absolute_lifetime.map_or(ABSOLUTE_LIFETIME.max(idle), plain);
    let absolute = bounded("spec.absoluteLifetime", absolute, second, LONGEST_LIFETIME);
    let touch =
        bounded("spec.touchInterval", spec.touch_interval.map_or(idle / 10, plain), Duration::ZERO, LONGEST_IDLE);
    let access = spec.access.clone().unwrap_or_default();
    let grace = access.rotation_grace.map_or(ROTATION_GRACE, plain);
    let grace = bounded("spec.access.rotationGrace", grace, Duration::ZERO, LONGEST_GRACE);
    if idle > absolute {
        fault("spec.idleTimeout", "is above absoluteLifetime: no session lives that long");
    }
    if touch > idle {
        fault("spec.touchInterval", "is above idleTimeout: a session that is in use would end between two renewals");
    }
    if spec.max_per_user.is_some_and(|most| !(1..=10_000).contains(&most)) {
        fault("spec.maxPerUser", "is not from 1 to 10000");
    }
    if spec.on_exceed.is_some() && spec.max_per_user.is_none() {
        fault("spec.onExceed", "needs maxPerUser");
    }
    if spec.layer.as_ref().is_some_and(|layer| layer.name.is_some() == layer.dedicated.is_some()) {
        fault("spec.layer", "needs either name or dedicated");
    }
    if spec.layer.as_ref().is_some_and(|layer| layer.namespace.is_some() && layer.name.is_none()) {
        fault("spec.layer.namespace", "needs layer.name");
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(ValidatedStore {
        uid: store.uid().unwrap_or_default(),
        policy: SessionPolicy {
            store: format!("{namespace}/{name}"),
            generation: store.metadata.generation.unwrap_or_default(),
            prefix,
            idle_timeout_milliseconds: milliseconds(idle),
            absolute_lifetime_milliseconds: milliseconds(absolute),
            touch_interval_milliseconds: milliseconds(touch),
            max_per_user: spec.max_per_user.and_then(|most| most.try_into().ok()),
            on_exceed: match spec.on_exceed {
                Some(ExceedChoice::Reject) => OnExceed::Reject,
                Some(ExceedChoice::EvictOldest) | None => OnExceed::EvictOldest,
            },
        },
        namespace,
        name,
        wait_replicas: spec.revoke_replicas.map_or(replicas.min(1), small),
        rotation: access.rotation.and_then(|rotation| rotation.try_into().ok()).unwrap_or_default(),
        rotation_grace_milliseconds: milliseconds(grace),
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 64
        && prefix.len() > 1
        && prefix.ends_with(':')
        && prefix.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && prefix.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter))
}
