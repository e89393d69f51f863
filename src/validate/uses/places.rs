//! The places of a layer's tenants, by prefix: which prefix a use gets, and what is in its way.

use std::collections::BTreeMap;

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
    pub(super) fn keep(&mut self, store: &DeclaredUse, now: Timestamp, left: Option<Time>) {
        let (namespace, prefix) = (store.namespace().unwrap_or_default(), served_prefix(store, self.host));
        let is_its = is_prefix_of(&prefix, store, self.host);
        let is_needed = left.is_none() || prefix != proper_prefix(store, self.host);
        if is_its && is_needed && self.in_the_way(&prefix, &namespace, left.is_none()).is_none() {
            let since = admission_of(store, self.host).map_or(Time(now), |(_, since)| Time(since));
            self.enter(Tenant { prefix, namespace, store: store.name_any(), uid: uid_of(store), since, left });
        }
    }

    /// Ends the places of those that do not stay. A prefix that another namespace could ask for stays with its namespace.
    pub(super) fn leave(&mut self, now: Timestamp, stays: impl Fn(&Tenant) -> bool) {
        for place in self.places.values_mut().filter(|place| place.left.is_none()) {
            if !stays(place) {
                place.left = Some(Time(now));
            }
        }
        let home = &self.host.namespace;
        self.places.retain(|prefix, place| {
            let is_of_its_own = place.namespace == *home || prefix.starts_with(&format!("{}/", place.namespace));
            place.left.is_none() || !is_of_its_own
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
        // Prefixes end with ':'.
        let inner = self.places.range(prefix.to_owned()..).take_while(|(other, _)| other.starts_with(prefix));
        let outer = prefix.match_indices(':').filter_map(|(at, _)| self.places.get(&prefix[..=at]));
        inner
            .map(|(_, place)| place)
            .chain(outer)
            .find(|place| (is_there && place.left.is_none()) || place.namespace != namespace)
    }

    /// Gives a newcomer a place.
    pub(super) fn take(&mut self, store: &ValidatedUse, prefix: String, now: Timestamp) -> Result<Tenant, Refusal> {
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
