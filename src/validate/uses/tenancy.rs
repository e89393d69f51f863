//! Which uses a layer serves, and which prefix belongs to whom.
//!
//! A layer keeps a list of its tenants in its status. A store on the list keeps its place whatever other stores, labels and
//! leaves become; a store that is not on it is a newcomer, and gets a place only where no tenant is in its way. A store of
//! another namespace has that namespace in its prefix, so no two namespaces ever contend for one. The exception is a store
//! that was admitted before prefixes were made so: it keeps its prefix.
//!
//! The list keeps the prefix of a store that is gone until the audit finds no key under it. Until then only a store of the same
//! kind, namespace and name gets it: one that is made again finds its keys, and no other store does.
//!
//! Pure, and cheap: it is asked in every pass of the layer.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

pub use super::answer::AdmittedUse;
pub(crate) use super::answer::Refusal;
pub use super::host::{HostLayer, Labels, dedicated_refusal};
use super::host::{judge, may_name};
pub use super::places::Emptied;
use super::places::{TenantPlaces, admission_of, is_prefix_of, uid_of, wanted_prefix, was_served};
use super::{ValidatedUse, layer_of, neighbours};
use crate::api::data_layer_status::Tenant;
use crate::api::uses::DeclaredUse;

/// Function libraries of one layer: each pass asks each for its digest, and each takes memory of every data node.
const MOST_LIBRARIES: usize = 64;

/// What a layer answers its stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admissions {
    /// Stores that it serves: its tenants in the order of their prefixes, then the newcomers.
    pub admitted: Vec<AdmittedUse>,
    /// Stores that it does not serve, by UID.
    pub refused: BTreeMap<String, Refusal>,
    /// The list of tenants that follows. No newcomer may be given a user before this list is stored.
    pub tenants: Vec<Tenant>,
}

impl Admissions {
    /// The same where the new list could not be stored: only stores that are on the `stored` list are served. The others, which
    /// wait for the list, come second. Where there was no list yet, the refused ones wait too: until the first list is stored, a
    /// store's own status is the only record of the prefix that it was served with, and a refusal would replace it.
    pub fn as_stored(self, stored: Option<&[Tenant]>) -> (Self, Vec<AdmittedUse>) {
        let refused = if stored.is_some() { self.refused } else { BTreeMap::new() };
        let stored = stored.unwrap_or_default();
        let (admitted, waiting) = self.admitted.into_iter().partition(|admitted| {
            let has_no_place = !admitted.accepted.kind.has_user();
            has_no_place
                || stored.iter().any(|tenant| {
                    tenant.left.is_none()
                        && tenant.uid == admitted.accepted.uid
                        && tenant.prefix == admitted.accepted.policy.prefix()
                })
        });
        (Self { admitted, refused, tenants: stored.to_vec() }, waiting)
    }
}

/// Judges all stores that want the layer. `tenants`: the list as it is stored; `None`: the layer never had one. `unreadable`:
/// UIDs of stores that cannot be read; they keep the places that they have. A store that is being deleted has left. `emptied`: prefixes
/// of stores that left, under which no key is any more.
pub fn admit<'a>(
    host: &HostLayer,
    tenants: Option<&[Tenant]>,
    stores: impl Iterator<Item = &'a DeclaredUse>,
    unreadable: &BTreeSet<String>,
    emptied: &Emptied,
    labels: Labels<'_>,
    now: Timestamp,
) -> Admissions {
    let here = (host.namespace.clone(), host.name.clone());
    let mut admissions = Admissions::default();
    let (mut contenders, mut revoked, mut libraries) = (Vec::new(), Vec::new(), Vec::new());
    for store in stores.filter(|store| store.metadata.deletion_timestamp.is_none() && layer_of(store) == here) {
        match may_name(store, host, labels) {
            Ok(()) if store.kind().has_user() => contenders.push(store),
            Ok(()) => libraries.push(store),
            Err(refusal) => {
                revoked.extend(store.kind().has_user().then_some(store));
                admissions.refused.insert(uid_of(store), refusal);
            }
        }
    }
    let mut book = TenantPlaces::of(host, tenants.unwrap_or_default());
    let stays: BTreeMap<String, &DeclaredUse> = contenders.iter().map(|store| (uid_of(store), *store)).collect();
    book.leave(now, emptied, |tenant| {
        unreadable.contains(&tenant.uid)
            || stays.get(&tenant.uid).is_some_and(|store| is_prefix_of(&tenant.prefix, store, host))
    });
    contenders.sort_by_cached_key(|store| rank(store, host, &book));
    if tenants.is_none() {
        // What was served before there was a list is on it from the beginning, even if it may not be served right now.
        let served = |store: &&&DeclaredUse| was_served(store, host);
        contenders.iter().filter(served).for_each(|store| book.keep(store, now, None));
        revoked.iter().filter(served).for_each(|store| book.keep(store, now, Some(Time(now))));
    }
    for store in contenders {
        let judged = judge(store, host).and_then(|validated| {
            let held = book.place_of(&validated.uid).cloned();
            let prefix = held.as_ref().map_or_else(|| wanted_prefix(store, host, &book), |place| place.prefix.clone());
            let asks = ValidatedUse { policy: validated.policy.with_prefix(prefix.clone()), ..validated };
            let others = book.places_of_others(&asks.uid);
            let tenants = others.clone().filter_map(|place| stays.get(&place.uid).copied());
            if let Some(refusal) =
                host.neighbours(&admissions.admitted).objection(&asks, held.is_none(), others, tenants)
            {
                return Err(refusal);
            }
            let place = held.map_or_else(|| book.take(&asks, prefix, now), Ok)?;
            book.note_kind(&asks);
            Ok((asks, place))
        });
        match judged {
            Ok((accepted, place)) => {
                admissions.admitted.push(AdmittedUse { accepted, since: place.since, advice: None });
            }
            Err(refusal) => _ = admissions.refused.insert(uid_of(store), refusal),
        }
    }
    admissions.tenants = book.places.into_values().collect();
    let advice = neighbours::advice(&admissions.admitted, &host.eviction_policy);
    for (admitted, advice) in admissions.admitted.iter_mut().zip(advice) {
        admitted.advice = advice;
    }
    admit_libraries(host, libraries, &mut admissions);
    admissions
}

/// Judges the uses without keys, which need no place: those that were loaded come first, then the oldest.
fn admit_libraries(host: &HostLayer, mut libraries: Vec<&DeclaredUse>, admissions: &mut Admissions) {
    let created = |library: &DeclaredUse| library.creation_timestamp().map_or(Timestamp::MIN, |time| time.0);
    libraries.sort_by_cached_key(|library| {
        let was_loaded = library.status.as_ref().is_some_and(|status| status.functions.is_some());
        (!was_loaded, created(library), library.namespace(), library.name_any())
    });
    let mut count = 0;
    for library in libraries {
        let judged = judge(library, host).and_then(|accepted| {
            let message = format!("the layer has {MOST_LIBRARIES} function libraries already; name another layer");
            if count < MOST_LIBRARIES { Ok(accepted) } else { Err(Refusal { reason: "LayerFull", message }) }
        });
        match judged {
            Ok(accepted) => {
                count += 1;
                admissions.admitted.push(AdmittedUse { accepted, since: Time(created(library)), advice: None });
            }
            Err(refusal) => _ = admissions.refused.insert(uid_of(library), refusal),
        }
    }
}

/// Who is asked first: tenants, then those that the layer served when it had no list or another one, then the oldest.
fn rank(store: &DeclaredUse, host: &HostLayer, book: &TenantPlaces<'_>) -> (u8, Option<Timestamp>, String, String) {
    let created = store.creation_timestamp().map(|time| time.0);
    let (class, time) = match (book.place_of(&uid_of(store)), was_served(store, host)) {
        (Some(place), _) => (0, Some(place.since.0)),
        (None, true) => (1, admission_of(store, host).map(|(_, since)| since).or(created)),
        (None, false) => (2, created),
    };
    (class, time, store.namespace().unwrap_or_default(), store.name_any())
}
