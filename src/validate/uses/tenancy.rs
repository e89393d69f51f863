//! Which uses a layer serves, and which prefix belongs to whom.
//!
//! A layer keeps a list of its tenants in its status. A store on the list keeps its place whatever other stores, labels and
//! leaves become; a store that is not on it is a newcomer, and gets a place only where no tenant is in its way. A store of
//! another namespace has that namespace in its prefix, so no two namespaces ever contend for one. The exception is a store
//! that was admitted before prefixes were made so: it keeps its prefix, and the list keeps that prefix for its namespace when
//! the store is gone.
//!
//! Pure, and cheap: it is asked in every pass of the layer.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::super::ValidatedLayer;
use super::eviction::{self, Verdict};
use super::neighbours::{self, Neighbours};
use super::{ValidatedUse, is_dedicated, layer_of, validate};
use crate::api::data_layer::{DataLayer, NamespaceChoice};
use crate::api::data_layer_status::Tenant;
use crate::api::uses::DeclaredUse;
use crate::model::UseKind;
use crate::model::uses::Advice;

/// Uses of one layer: their users are in the file from which servers start, and that is in a Secret, which holds
/// 1 MiB. 500 users are about half of it.
const MOST_USES: usize = 500;
/// Function libraries of one layer: each pass asks each for its digest, and each takes memory of every data node.
const MOST_LIBRARIES: usize = 64;
/// The directive that says which keys a full server drops.
const EVICTION_POLICY: &str = "maxmemory-policy";

/// What of a layer decides whom it serves. It is made of a layer that was accepted, so a specification that is refused takes
/// nothing away from a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    namespace: String,
    name: String,
    /// UID of the store whose own the layer is.
    owner: Option<String>,
    /// Namespaces that may name the layer.
    from: NamespaceChoice,
    selector: Option<LabelSelector>,
    eviction_policy: String,
    replicas: u16,
    /// Whether it has a user for all keys.
    has_application: bool,
}

impl Host {
    /// Of a layer; `object` has the specification that `layer` was made from.
    pub fn of(object: &DataLayer, layer: &ValidatedLayer) -> Self {
        let allowed = object.spec.access.as_ref().and_then(|access| access.namespaces.clone()).unwrap_or_default();
        let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            namespace: layer.identity.namespace.clone(),
            name: layer.identity.name.clone(),
            owner: owner.map(|owner| owner.uid.clone()),
            from: allowed.from.unwrap_or(NamespaceChoice::Same),
            selector: allowed.selector,
            eviction_policy: layer.settings.get(EVICTION_POLICY).cloned().unwrap_or_default(),
            replicas: layer.data_nodes.saturating_sub(1),
            has_application: layer.application_access,
        }
    }
}

impl Host {
    fn neighbours<'a>(&'a self, admitted: &'a [Admitted]) -> Neighbours<'a> {
        Neighbours {
            layer: &self.name,
            eviction_policy: &self.eviction_policy,
            has_application: self.has_application,
            admitted,
        }
    }
}

/// Why a store is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: &'static str,
    /// A sentence that names the fact and what would change it.
    pub message: String,
}

/// A store that a layer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The store; its policy has the prefix that it was admitted with.
    pub accepted: ValidatedUse,
    /// Since when it has its place; a use without keys has none, and is here since it was made.
    pub since: Time,
    /// What it should know of its layer.
    pub advice: Option<Advice>,
}

/// What a layer answers its stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admissions {
    /// Stores that it serves: its tenants in the order of their prefixes, then the newcomers.
    pub admitted: Vec<Admitted>,
    /// Stores that it does not serve, by UID.
    pub refused: BTreeMap<String, Refusal>,
    /// The list of tenants that follows. No newcomer may be given a user before this list is stored.
    pub tenants: Vec<Tenant>,
}

impl Admissions {
    /// The same where the new list could not be stored: only stores that are on the `stored` list are served. The others, which
    /// wait for the list, come second. Where there was no list yet, the refused ones wait too: until the first list is stored, a
    /// store's own status is the only record of the prefix that it was served with, and a refusal would replace it.
    pub fn as_stored(self, stored: Option<&[Tenant]>) -> (Self, Vec<Admitted>) {
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

/// Labels of a namespace, if it is known.
pub type Labels<'a> = &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>;

/// Judges all stores that want the layer. `tenants`: the list as it is stored; `None`: the layer never had one. `unreadable`:
/// UIDs of stores that cannot be read; they keep the places that they have. A store that is being deleted has left.
pub fn admit<'a>(
    host: &Host,
    tenants: Option<&[Tenant]>,
    stores: impl Iterator<Item = &'a DeclaredUse>,
    unreadable: &BTreeSet<String>,
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
    let mut book = Book::of(host, tenants.unwrap_or_default());
    let stays: BTreeMap<String, &DeclaredUse> = contenders.iter().map(|store| (uid_of(store), *store)).collect();
    book.leave(now, |tenant| {
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
            Ok((asks, place))
        });
        match judged {
            Ok((accepted, place)) => {
                admissions.admitted.push(Admitted { accepted, since: place.since, advice: None });
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
fn admit_libraries(host: &Host, mut libraries: Vec<&DeclaredUse>, admissions: &mut Admissions) {
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
                admissions.admitted.push(Admitted { accepted, since: Time(created(library)), advice: None });
            }
            Err(refusal) => _ = admissions.refused.insert(uid_of(library), refusal),
        }
    }
}

fn uid_of(store: &DeclaredUse) -> String {
    store.uid().unwrap_or_default()
}

/// Who is asked first: tenants, then those that the layer served when it had no list or another one, then the oldest.
fn rank(store: &DeclaredUse, host: &Host, book: &Book<'_>) -> (u8, Option<Timestamp>, String, String) {
    let created = store.creation_timestamp().map(|time| time.0);
    let (class, time) = match (book.place_of(&uid_of(store)), was_served(store, host)) {
        (Some(place), _) => (0, Some(place.since.0)),
        (None, true) => (1, admission_of(store, host).map(|(_, since)| since).or(created)),
        (None, false) => (2, created),
    };
    (class, time, store.namespace().unwrap_or_default(), store.name_any())
}

/// What the store's own status says of its admission to this layer: the prefix, and since when.
fn admission_of(store: &DeclaredUse, host: &Host) -> Option<(String, Timestamp)> {
    let admission = store.status.as_ref()?.admission.as_ref()?;
    let is_here = admission.namespace == host.namespace && admission.name == host.name;
    is_here.then(|| (admission.prefix.clone(), admission.since.0))
}

/// Whether the store's own status says that the layer served it. Only the order of newcomers depends on it.
fn was_served(store: &DeclaredUse, host: &Host) -> bool {
    let Some(status) = &store.status else { return false };
    let is_here = status.layer.as_ref().is_some_and(|it| it.namespace == host.namespace && it.name == host.name);
    admission_of(store, host).is_some() || (is_here && status.user.is_some())
}

/// The prefix as the store's specification has it.
fn plain_prefix(store: &DeclaredUse) -> String {
    store.spec.key_prefix().cloned().unwrap_or_else(|| format!("{}:", store.name_any()))
}

/// The prefix that a newcomer gets. On a layer of another namespace it begins with the store's namespace and '/', which no
/// specification can say: so it is never a prefix of another namespace.
fn proper_prefix(store: &DeclaredUse, host: &Host) -> String {
    match store.namespace().unwrap_or_default() {
        own if own == host.namespace => plain_prefix(store),
        other => format!("{other}/{}", plain_prefix(store)),
    }
}

/// Whether the list may say this of the store.
fn is_prefix_of(prefix: &str, store: &DeclaredUse, host: &Host) -> bool {
    prefix == proper_prefix(store, host) || prefix == plain_prefix(store)
}

/// The prefix that a store without a place asks for: the one that the list keeps for it, or the proper one.
fn wanted_prefix(store: &DeclaredUse, host: &Host, book: &Book<'_>) -> String {
    let kept = book.last_place_of(&uid_of(store)).map(|place| place.prefix.clone());
    kept.filter(|prefix| is_prefix_of(prefix, store, host)).unwrap_or_else(|| proper_prefix(store, host))
}

/// The prefix that a store was served with: every one was served with its plain prefix before admissions were recorded.
fn served_prefix(store: &DeclaredUse, host: &Host) -> String {
    admission_of(store, host).map_or_else(|| plain_prefix(store), |(prefix, _)| prefix)
}

/// The list of tenants while it is worked on, by prefix. No two places of different namespaces overlap, and no two of stores
/// that are there.
struct Book<'a> {
    host: &'a Host,
    places: BTreeMap<String, Tenant>,
    /// The prefix of each store, by UID.
    prefixes: BTreeMap<String, String>,
}

impl<'a> Book<'a> {
    /// The list as it is stored. A person may have edited it: of two places that may not both be, the earlier stays.
    fn of(host: &'a Host, tenants: &[Tenant]) -> Self {
        let mut book = Self { host, places: BTreeMap::new(), prefixes: BTreeMap::new() };
        let mut sorted: Vec<&Tenant> = tenants.iter().collect();
        sorted.sort_by_key(|tenant| (tenant.since.0, &tenant.prefix));
        for tenant in sorted {
            let is_second = book.prefixes.contains_key(&tenant.uid);
            if !is_second && book.in_the_way(&tenant.prefix, &tenant.namespace, tenant.left.is_none()).is_none() {
                book.enter(tenant.clone());
            }
        }
        book
    }

    /// Enters a store that was served before there was a list. `left`: when it lost its leave; then only a prefix that another
    /// namespace could ask for is kept.
    fn keep(&mut self, store: &DeclaredUse, now: Timestamp, left: Option<Time>) {
        let (namespace, prefix) = (store.namespace().unwrap_or_default(), served_prefix(store, self.host));
        let is_its = is_prefix_of(&prefix, store, self.host);
        let is_needed = left.is_none() || prefix != proper_prefix(store, self.host);
        if is_its && is_needed && self.in_the_way(&prefix, &namespace, left.is_none()).is_none() {
            let since = admission_of(store, self.host).map_or(Time(now), |(_, since)| Time(since));
            self.enter(Tenant { prefix, namespace, store: store.name_any(), uid: uid_of(store), since, left });
        }
    }

    /// Ends the places of those that do not stay. A prefix that another namespace could ask for stays with its namespace.
    fn leave(&mut self, now: Timestamp, stays: impl Fn(&Tenant) -> bool) {
        for place in self.places.values_mut().filter(|place| place.left.is_none()) {
            if !stays(place) {
                place.left = Some(Time(now));
            }
        }
        let home = &self.host.namespace;
        self.places.retain(|prefix, place| {
            let is_nobody_elses = place.namespace == *home || prefix.starts_with(&format!("{}/", place.namespace));
            place.left.is_none() || !is_nobody_elses
        });
    }

    fn enter(&mut self, place: Tenant) {
        self.prefixes.insert(place.uid.clone(), place.prefix.clone());
        self.places.insert(place.prefix.clone(), place);
    }

    /// The place that the store has, or had and that is kept for its namespace.
    fn last_place_of(&self, uid: &str) -> Option<&Tenant> {
        self.places.get(self.prefixes.get(uid)?).filter(|place| place.uid == uid)
    }

    fn place_of(&self, uid: &str) -> Option<&Tenant> {
        self.last_place_of(uid).filter(|place| place.left.is_none())
    }

    /// The places that other uses have.
    fn places_of_others(&self, uid: &str) -> impl Iterator<Item = &Tenant> + Clone {
        self.places.values().filter(move |place| place.left.is_none() && place.uid != uid)
    }

    /// A place whose keys could be read under `prefix`, or the other way round, and that keeps a store of `namespace` out:
    /// one of a store that is there, if `is_there`, or one of another namespace.
    fn in_the_way(&self, prefix: &str, namespace: &str, is_there: bool) -> Option<&Tenant> {
        // Prefixes end with ':'.
        let inner = self.places.range(prefix.to_owned()..).take_while(|(other, _)| other.starts_with(prefix));
        let outer = prefix.match_indices(':').filter_map(|(at, _)| self.places.get(&prefix[..=at]));
        inner
            .map(|(_, place)| place)
            .chain(outer)
            .find(|place| (is_there && place.left.is_none()) || place.namespace != namespace)
    }

    /// Gives a newcomer a place.
    fn take(&mut self, store: &ValidatedUse, prefix: String, now: Timestamp) -> Result<Tenant, Refusal> {
        if let Some(other) = self.in_the_way(&prefix, &store.namespace, true) {
            let whose = match &other.left {
                None => format!("{}/{}, which has its place", other.namespace, other.store),
                Some(_) => format!("namespace {}, whose keys may still be there", other.namespace),
            };
            let message = format!(
                "the prefix {prefix} overlaps {} of {whose}: each could read the other's keys; make this {} with another \
                 keyPrefix",
                other.prefix,
                store.kind.words().noun
            );
            return Err(Refusal { reason: "PrefixOverlaps", message });
        }
        if self.places.values().filter(|place| place.left.is_none()).count() >= MOST_USES {
            let message = format!("the layer serves {MOST_USES} uses already; name another layer");
            return Err(Refusal { reason: "LayerFull", message });
        }
        let place = Tenant {
            prefix,
            namespace: store.namespace.clone(),
            store: store.name.clone(),
            uid: store.uid.clone(),
            since: Time(now),
            left: None,
        };
        self.enter(place.clone());
        Ok(place)
    }
}

fn judge(store: &DeclaredUse, host: &Host) -> Result<ValidatedUse, Refusal> {
    keeps(store.kind(), host)?;
    let replicas = host.replicas;
    let validated = validate(store, replicas).map_err(|faults| Refusal {
        reason: "Invalid",
        message: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    })?;
    if validated.wait_replicas > replicas {
        let message = format!(
            "revokeReplicas is {}, but the layer has {replicas} replicas: no revocation would ever be confirmed",
            validated.wait_replicas
        );
        return Err(Refusal { reason: "TooFewReplicas", message });
    }
    Ok(validated)
}

fn may_name(store: &DeclaredUse, host: &Host, labels: Labels<'_>) -> Result<(), Refusal> {
    let namespace = store.namespace().unwrap_or_default();
    if is_dedicated(store) {
        return if host.owner.is_some() && host.owner == store.uid() {
            Ok(())
        } else {
            Err(name_taken(store.kind(), host))
        };
    }
    if namespace == host.namespace {
        return Ok(());
    }
    let matches = match host.from {
        NamespaceChoice::Same => false,
        NamespaceChoice::All => true,
        NamespaceChoice::Selector => host.selector.clone().is_some_and(|selector| {
            let selector: Option<Selector> = selector.try_into().ok();
            // A namespace that nobody knows has no leave.
            selector.zip(labels(&namespace)).is_some_and(|(selector, labels)| selector.matches(&labels))
        }),
    };
    if matches {
        Ok(())
    } else {
        let message = format!(
            "DataLayer {}/{} does not let namespace {namespace} name it: its owner can, with access.namespaces",
            host.namespace, host.name
        );
        Err(Refusal { reason: "NotAllowed", message })
    }
}

/// The answer to a store whose dedicated layer's name belongs to somebody else.
fn name_taken(kind: UseKind, host: &Host) -> Refusal {
    let (namespace, name) = (&host.namespace, &host.name);
    let noun = kind.words().noun;
    let message = format!(
        "DataLayer {namespace}/{name} exists and does not belong to this {noun}: remove it or rename the {noun}"
    );
    Refusal { reason: "NameTaken", message }
}

/// Whether the layer keeps the data of such a use.
fn keeps(kind: UseKind, host: &Host) -> Result<(), Refusal> {
    let policy = host.eviction_policy.as_str();
    let judged = eviction::judge(kind, policy);
    match judged.verdict {
        Verdict::Fine | Verdict::Warned => return Ok(()),
        Verdict::Refused => {}
    }
    let measured = judged.ground;
    let message = format!(
        "DataLayer {} has eviction policy {policy}, which drops {} when memory is full ({measured}); name a layer with {}, or leave \
         layer out for one of your own",
        host.name,
        kind.words().data,
        eviction::suitable(kind)
    );
    Err(Refusal { reason: "Evicts", message })
}
