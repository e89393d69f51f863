//! Which session stores a layer serves: each one's own fields, and how they get on with the layer and with each other.
//!
//! Judged for all stores of a layer at once, so that whoever asks gets the same answer: of two whose prefixes overlap the
//! older one stays. Cheap: it is asked in every pass of the layer.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::{Fault, small};
use crate::api::data_layer::{DataLayer, DeploymentMode, NamespaceChoice};
use crate::api::names::{LONGEST_STORE_NAME, sessions_layer};
use crate::api::session_store::{ExceedChoice, SessionStore};
use crate::model::purpose;
use crate::model::session_policy::{OnExceed, SessionPolicy};

/// Session stores of one layer: their users are in the file from which servers start, and that is in a Secret, which holds
/// 1 MiB. 500 users are about half of it.
const MOST_STORES: usize = 500;
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

/// Why a store is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: &'static str,
    /// A sentence that names the fact and what would change it.
    pub message: String,
}

/// What a layer answers its stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admissions {
    /// Stores that it serves, the oldest first.
    pub admitted: Vec<ValidatedStore>,
    /// Stores that it does not serve, by UID.
    pub refused: BTreeMap<String, Refusal>,
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

/// Labels of a namespace, if it is known.
pub type Labels<'a> = &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>;

/// Judges all stores that want `layer`; stores that are being deleted are nobody's any more.
pub fn admit<'a>(layer: &DataLayer, stores: impl Iterator<Item = &'a SessionStore>, labels: Labels<'_>) -> Admissions {
    let here = (layer.namespace().unwrap_or_default(), layer.name_any());
    let mut stores: Vec<&SessionStore> =
        stores.filter(|store| store.metadata.deletion_timestamp.is_none() && layer_of(store) == here).collect();
    stores.sort_by_cached_key(|store| {
        (store.creation_timestamp().map(|time| time.0), store.namespace(), store.name_any())
    });
    let mut admissions = Admissions::default();
    let mut prefixes: BTreeMap<String, String> = BTreeMap::new();
    for store in stores {
        let judged = judge(store, layer, labels).and_then(|store| {
            if let Some(other) = overlapping(&prefixes, &store.policy.prefix) {
                let message = format!(
                    "the prefix {} overlaps that of {other}, which is older: each could read the other's sessions; make this \
                     store anew with another keyPrefix",
                    store.policy.prefix
                );
                return Err(Refusal { reason: "PrefixOverlaps", message });
            }
            if admissions.admitted.len() >= MOST_STORES {
                let message = format!("the layer serves {MOST_STORES} stores already, all older; name another layer");
                return Err(Refusal { reason: "LayerFull", message });
            }
            Ok(store)
        });
        match judged {
            Ok(store) => {
                prefixes.insert(store.policy.prefix.clone(), store.policy.store.clone());
                admissions.admitted.push(store);
            }
            Err(refusal) => _ = admissions.refused.insert(store.uid().unwrap_or_default(), refusal),
        }
    }
    admissions
}

/// The store among `prefixes` whose prefix begins `prefix`, or is begun by it. Prefixes end with ':'.
fn overlapping<'a>(prefixes: &'a BTreeMap<String, String>, prefix: &str) -> Option<&'a String> {
    let inner = prefixes.range(prefix.to_owned()..).next().filter(|(other, _)| other.starts_with(prefix));
    let outer = || prefix.match_indices(':').find_map(|(at, _)| prefixes.get(&prefix[..=at]));
    inner.map(|(_, store)| store).or_else(outer)
}

fn judge(store: &SessionStore, layer: &DataLayer, labels: Labels<'_>) -> Result<ValidatedStore, Refusal> {
    may_name(store, layer, labels)?;
    keeps_sessions(layer)?;
    let validated = validate(store, replicas_of(layer)).map_err(|faults| Refusal {
        reason: "Invalid",
        message: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    })?;
    let replicas = replicas_of(layer);
    if validated.wait_replicas > replicas {
        let message = format!(
            "revokeReplicas is {}, but the layer has {replicas} replicas: no revocation would ever be confirmed",
            validated.wait_replicas
        );
        return Err(Refusal { reason: "TooFewReplicas", message });
    }
    Ok(validated)
}

fn may_name(store: &SessionStore, layer: &DataLayer, labels: Labels<'_>) -> Result<(), Refusal> {
    let (namespace, own) = (store.namespace().unwrap_or_default(), layer.namespace().unwrap_or_default());
    if is_dedicated(store) {
        let owner = store.uid();
        let is_ours =
            layer.owner_references().iter().any(|it| it.controller == Some(true) && Some(&it.uid) == owner.as_ref());
        return if is_ours { Ok(()) } else { Err(name_taken(layer)) };
    }
    if namespace == own {
        return Ok(());
    }
    let allowed = layer.spec.access.as_ref().and_then(|access| access.namespaces.as_ref());
    let allowed = allowed.cloned().unwrap_or_default();
    let matches = match allowed.from.unwrap_or(NamespaceChoice::Same) {
        NamespaceChoice::Same => false,
        NamespaceChoice::All => true,
        NamespaceChoice::Selector => allowed.selector.is_some_and(|selector| {
            let selector: Option<Selector> = selector.try_into().ok();
            // A namespace that nobody knows has no leave.
            selector.zip(labels(&namespace)).is_some_and(|(selector, labels)| selector.matches(&labels))
        }),
    };
    if matches {
        Ok(())
    } else {
        let message = format!(
            "DataLayer {own}/{} does not let namespace {namespace} name it: its owner can, with access.namespaces",
            layer.name_any()
        );
        Err(Refusal { reason: "NotAllowed", message })
    }
}

/// The answer to a store whose dedicated layer's name belongs to somebody else.
pub fn name_taken(layer: &DataLayer) -> Refusal {
    let (namespace, name) = (layer.namespace().unwrap_or_default(), layer.name_any());
    let message =
        format!("DataLayer {namespace}/{name} exists and does not belong to this store: remove it or rename the store");
    Refusal { reason: "NameTaken", message }
}

/// Sessions are neither to be evicted for other keys nor among each other. Measured (`docs/uses/sessions.md`): 20,000
/// sessions, 2,000 limits and a flood of 100,000 cache entries in 24 MiB.
fn keeps_sessions(layer: &DataLayer) -> Result<(), Refusal> {
    let memory = layer.spec.memory.clone().unwrap_or_default();
    let named = memory.eviction_policy.and_then(|policy| serde_json::to_value(policy).ok());
    let default = purpose::defaults(super::purpose_of(&layer.spec)).eviction_policy.to_owned();
    let policy = named.and_then(|policy| policy.as_str().map(str::to_owned)).unwrap_or(default);
    let measured = match policy.as_str() {
        "noeviction" | "volatile-ttl" => return Ok(()),
        "allkeys-lru" => "measured, a cache flood left 34 of 20,000 sessions",
        "volatile-lru" => "every session has a TTL: measured, a cache flood left 18 of 20,000 sessions",
        "volatile-lfu" => "every session has a TTL: measured, a cache flood left 2,377 of 20,000 sessions",
        _ if policy.starts_with("allkeys-") => {
            "any key may go: under allkeys-lru a cache flood left 34 of 20,000 sessions"
        }
        _ => "every session has a TTL: under volatile-lru a cache flood left 18 of 20,000 sessions",
    };
    let message = format!(
        "DataLayer {} has eviction policy {policy}, which drops sessions when memory is full ({measured}); name a layer with \
         noeviction or volatile-ttl, or leave layer out for one of your own",
        layer.name_any()
    );
    Err(Refusal { reason: "Evicts", message })
}

fn replicas_of(layer: &DataLayer) -> u16 {
    let default = if layer.spec.mode == DeploymentMode::Standalone { 0 } else { 2 };
    layer.spec.replicas.map_or(default, small)
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
