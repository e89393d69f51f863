//! The places of a layer's tenants, by prefix: which prefix a use gets, and what is in its way.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::ValidatedUse;
use super::answer::Refusal;
use super::host::HostLayer;
use crate::api::data_layer_status::Tenant;
use crate::api::uses::DeclaredUse;

/// Uses of one layer: their users are in the file from which servers start, and that is in a Secret, which holds
/// 1 MiB. 500 users are about half of it.
const MOST_USES: usize = 500;
/// Prefixes of uses of one namespace that left and whose keys may still be there: the list is in the layer's status.
const MOST_LEFT: usize = 500;

pub(super) fn uid_of(store: &DeclaredUse) -> String {
    store.uid().unwrap_or_default()
}

/// What the store's own status says of its admission to this layer: the prefix, and since when.
pub(super) fn admission_of(store: &DeclaredUse, host: &HostLayer) -> Option<(String, Timestamp)> {
    let admission = store.status.as_ref()?.admission.as_ref()?;
    let is_here = admission.namespace == host.namespace && admission.name == host.name;
    is_here.then(|| (admission.prefix.clone(), admission.since.0))
}

/// Whether the store's own status says that the layer served it. Only the order of newcomers depends on it.
pub(super) fn was_served(store: &DeclaredUse, host: &HostLayer) -> bool {
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
pub(super) fn proper_prefix(store: &DeclaredUse, host: &HostLayer) -> String {
    match store.namespace().unwrap_or_default() {
        own if own == host.namespace => plain_prefix(store),
        other => format!("{other}/{}", plain_prefix(store)),
    }
}

/// Whether the list may say this of the store.
pub(super) fn is_prefix_of(prefix: &str, store: &DeclaredUse, host: &HostLayer) -> bool {
    prefix == proper_prefix(store, host) || prefix == plain_prefix(store)
}

/// The prefix that a store without a place asks for: the one that the list keeps for it, or the proper one.
pub(super) fn wanted_prefix(store: &DeclaredUse, host: &HostLayer, book: &TenantPlaces<'_>) -> String {
    let kept = book.last_place_of(&uid_of(store)).map(|place| place.prefix.clone());
    kept.filter(|prefix| is_prefix_of(prefix, store, host)).unwrap_or_else(|| proper_prefix(store, host))
}

/// The prefix that a store was served with: every one was served with its plain prefix before admissions were recorded.
fn served_prefix(store: &DeclaredUse, host: &HostLayer) -> String {
    admission_of(store, host).map_or_else(|| plain_prefix(store), |(prefix, _)| prefix)
}

/// Prefixes under which the audit found no key, each with the time at which its use had left before.
pub type Emptied = BTreeSet<(String, Timestamp)>;

/// The list of tenants while it is worked on, by prefix. No two places of different namespaces overlap, and no two of stores
/// that are there.
pub(super) struct TenantPlaces<'a> {
    host: &'a HostLayer,
    pub(super) places: BTreeMap<String, Tenant>,
    /// The prefix of each store, by UID.
    prefixes: BTreeMap<String, String>,
}

impl<'a> TenantPlaces<'a> {
    /// The list as it is stored. A person may have edited it: of two places that may not both be, the earlier stays.
    pub(super) fn of(host: &'a HostLayer, tenants: &[Tenant]) -> Self {
        let mut book = Self { host, places: BTreeMap::new(), prefixes: BTreeMap::new() };
        let mut sorted: Vec<&Tenant> = tenants.iter().collect();
        sorted.sort_by_key(|tenant| (tenant.left.is_some(), tenant.since.0, &tenant.prefix));
        for tenant in sorted {
            let is_second = match &tenant.left {
                None => book.prefixes.contains_key(&tenant.uid),
                // It may have left another prefix before.
                Some(_) => book.places.contains_key(&tenant.prefix),
            };
            if !is_second && book.in_the_way(&tenant.prefix, &tenant.namespace, tenant.left.is_none()).is_none() {
                book.enter(tenant.clone());
            }
        }
        book
    }

    /// Enters a store that was served before there was a list. `left`: when it lost its leave.
    pub(super) fn keep(&mut self, store: &DeclaredUse, now: Timestamp, left: Option<Time>) {
        let (namespace, prefix) = (store.namespace().unwrap_or_default(), served_prefix(store, self.host));
        let is_its = is_prefix_of(&prefix, store, self.host);
        if is_its && self.in_the_way(&prefix, &namespace, left.is_none()).is_none() {
            let since = admission_of(store, self.host).map_or(Time(now), |(_, since)| Time(since));
            let kind = Some(store.kind().words().kind.to_owned());
            self.enter(Tenant { prefix, namespace, kind, store: store.name_any(), uid: uid_of(store), since, left });
        }
    }

    /// Ends the places of those that do not stay. The prefix of one that left is kept until it was found `emptied`.
    pub(super) fn leave(&mut self, now: Timestamp, emptied: &Emptied, stays: impl Fn(&Tenant) -> bool) {
        for place in self.places.values_mut().filter(|place| place.left.is_none()) {
            if !stays(place) {
                place.left = Some(Time(now));
            }
        }
        self.places.retain(|prefix, place| {
            place.left.as_ref().is_none_or(|left| !emptied.contains(&(prefix.clone(), left.0)))
        });
    }

    fn enter(&mut self, place: Tenant) {
        if place.left.is_none() || !self.prefixes.contains_key(&place.uid) {
            self.prefixes.insert(place.uid.clone(), place.prefix.clone());
        }
        self.places.insert(place.prefix.clone(), place);
    }

    /// The place that the store has, or had and that is kept for its namespace.
    fn last_place_of(&self, uid: &str) -> Option<&Tenant> {
        self.places.get(self.prefixes.get(uid)?).filter(|place| place.uid == uid)
    }

    pub(super) fn place_of(&self, uid: &str) -> Option<&Tenant> {
        self.last_place_of(uid).filter(|place| place.left.is_none())
    }

    /// The places that other uses have.
    pub(super) fn places_of_others(&self, uid: &str) -> impl Iterator<Item = &Tenant> + Clone {
        self.places.values().filter(move |place| place.left.is_none() && place.uid != uid)
    }

    /// A place whose keys could be read under `prefix`, or the other way round, and that keeps a store of `namespace` out:
    /// one of a store that is there, if `is_there`, or one of another namespace.
    fn in_the_way(&self, prefix: &str, namespace: &str, is_there: bool) -> Option<&Tenant> {
        self.overlapping(prefix).find(|place| (is_there && place.left.is_none()) || place.namespace != namespace)
    }

    /// The places whose keys could be read under `prefix`, or the other way round.
    fn overlapping(&self, prefix: &str) -> impl Iterator<Item = &Tenant> {
        // Prefixes end with ':'.
        let inner = self.places.range(prefix.to_owned()..).take_while(move |(other, _)| other.starts_with(prefix));
        let outer = prefix.match_indices(':').filter_map(|(at, _)| self.places.get(&prefix[..=at]));
        inner.map(|(_, place)| place).chain(outer)
    }

    /// Of the same namespace: a place of another use that left, and whose keys this one could read.
    fn left_by_another(&self, prefix: &str, store: &ValidatedUse) -> Option<&Tenant> {
        let kind = store.kind.words().kind;
        let is_the_same = |place: &Tenant| {
            let is_of_kind = place.kind.as_ref().is_none_or(|theirs| theirs == kind);
            (&place.namespace, &place.store) == (&store.namespace, &store.name) && is_of_kind
        };
        self.overlapping(prefix).find(|place| place.left.is_some() && !is_the_same(place))
    }

    /// Enters the kind of a use that an older version entered.
    pub(super) fn note_kind(&mut self, store: &ValidatedUse) {
        if let Some(place) = self.prefixes.get(&store.uid).and_then(|prefix| self.places.get_mut(prefix))
            && place.uid == store.uid
        {
            place.kind = Some(store.kind.words().kind.to_owned());
        }
    }

    /// Gives a newcomer a place.
    pub(super) fn take(&mut self, store: &ValidatedUse, prefix: String, now: Timestamp) -> Result<Tenant, Refusal> {
        let in_the_way = self.in_the_way(&prefix, &store.namespace, true);
        if let Some(other) = in_the_way.or_else(|| self.left_by_another(&prefix, store)) {
            let whose = match &other.left {
                None => format!("{}/{}, which has its place", other.namespace, other.store),
                Some(_) if other.namespace == store.namespace => {
                    format!("{}/{}, which left, and whose keys may still be there", other.namespace, other.store)
                }
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
        let is_of_those_that_left = |place: &&Tenant| place.left.is_some() && place.namespace == store.namespace;
        let has_left = self.places.contains_key(&prefix);
        if !has_left && self.places.values().filter(is_of_those_that_left).count() >= MOST_LEFT {
            let message = format!(
                "the layer keeps {MOST_LEFT} prefixes of uses of namespace {} that left and whose keys may still be there; name another \
                 layer, or delete those keys",
                store.namespace
            );
            return Err(Refusal { reason: "LayerFull", message });
        }
        let place = Tenant {
            prefix,
            namespace: store.namespace.clone(),
            kind: Some(store.kind.words().kind.to_owned()),
            store: store.name.clone(),
            uid: store.uid.clone(),
            since: Time(now),
            left: None,
        };
        self.enter(place.clone());
        Ok(place)
    }
}
