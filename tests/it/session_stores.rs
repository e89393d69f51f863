//! Which stores a layer serves, and why not the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::data_layer_status::Tenant;
use redoubt::api::uses::{DeclaredUse, UseSpec};
use redoubt::model::{Policy, SessionPolicy, UseKind};
use redoubt::validate::uses::tenancy::{Admissions, Emptied, HostLayer, admit};
use redoubt::validate::{DataVolumes, ResolvedDefaults, validate};
use serde_json::{Value, json};

pub fn layer(spec: &Value) -> DataLayer {
    let metadata = json!({"name": "shared", "namespace": "data", "uid": "layer-1"});
    let object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A store of the layer `data/shared`, made in the given second.
fn store(namespace: &str, name: &str, second: u8, further: &Value) -> DeclaredUse {
    let mut spec = json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": "data"}});
    for (field, value) in further.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let metadata = json!({
        "name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "generation": 4,
        "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
    });
    let object =
        json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": metadata, "spec": spec});
    DeclaredUse::read(UseKind::SessionStore, &object).unwrap()
}

fn admitted_by(layer: &DataLayer, stores: &[DeclaredUse]) -> Admissions {
    let labels = |namespace: &str| match namespace {
        "shop" => Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
        "office" => Some(BTreeMap::new()),
        _ => None,
    };
    admit(&host(layer), None, stores.iter(), &BTreeSet::new(), &Emptied::new(), &labels, Timestamp::UNIX_EPOCH)
}

pub fn host(layer: &DataLayer) -> HostLayer {
    let resolved = ResolvedDefaults {
        engine_image: "engine".to_owned(),
        agent_image: "agent".to_owned(),
        volumes: DataVolumes::Undecided,
        shares: None,
        allowed_images: Vec::new(),
        service_domain: "svc".to_owned(),
    };
    HostLayer::of(layer, &validate(layer, &resolved).unwrap())
}

fn names(admissions: &Admissions) -> Vec<&str> {
    admissions.admitted.iter().map(|it| it.accepted.policy.owner()).collect()
}

fn sessions(policy: &Policy) -> &SessionPolicy {
    match policy {
        Policy::Sessions(policy) => policy,
        Policy::Limits(_) | Policy::Caches(_) | Policy::Functions(_) => panic!("{policy:?}"),
    }
}

fn plain() -> DataLayer {
    layer(&json!({"mode": "Sentinel"}))
}

#[test]
fn a_store_has_safe_defaults() {
    let admissions = admitted_by(&plain(), &[store("data", "web", 0, &json!({}))]);
    let [admitted] = admissions.admitted.as_slice() else { panic!("{admissions:?}") };
    let store = &admitted.accepted;
    let policy = sessions(&store.policy);
    assert_eq!((policy.prefix.as_str(), policy.touch_interval_milliseconds, policy.generation), ("web:", 180_000, 4));
    assert_eq!((policy.absolute_lifetime_milliseconds, store.wait_replicas), (2_592_000_000, 1));
    assert_eq!((store.rotation, store.rotation_grace), (0, Duration::from_hours(1)));
}

#[test]
fn of_two_overlapping_prefixes_the_older_stays_whatever_the_order() {
    let stores = |first: &str, second: &str| {
        [store("data", "b", 1, &json!({"keyPrefix": first})), store("data", "a", 2, &json!({"keyPrefix": second}))]
    };
    for (first, second) in [("web:", "web:"), ("web:", "web:admin:"), ("web:admin:", "web:")] {
        let mut stores = stores(first, second);
        for _ in 0..2 {
            let admissions = admitted_by(&plain(), &stores);
            assert_eq!(names(&admissions), ["data/b"], "{first} {second}");
            let refusal = &admissions.refused["data-a"];
            assert_eq!(refusal.reason, "PrefixOverlaps");
            assert!(refusal.message.contains("data/b"), "{}", refusal.message);
            stores.reverse();
        }
    }
    assert_eq!(names(&admitted_by(&plain(), &stores("web:", "web2:"))), ["data/b", "data/a"]);
    assert_eq!(names(&admitted_by(&plain(), &stores("web:a:", "web:b:"))), ["data/b", "data/a"]);
    // At the same second the name decides.
    let same = [store("data", "b", 1, &json!({"keyPrefix": "x:"})), store("data", "a", 1, &json!({"keyPrefix": "x:"}))];
    assert_eq!(names(&admitted_by(&plain(), &same)), ["data/a"]);
}

/// Though a finalizer of another program keeps its object.
#[test]
fn a_store_that_is_being_deleted_is_not_served_and_has_no_place() {
    let prefix = json!({"keyPrefix": "web:"});
    let mut stores = [store("data", "first", 1, &prefix), store("data", "second", 2, &prefix)];
    assert_eq!(names(&admitted_by(&plain(), &stores)), ["data/first"]);
    stores[0].metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(names(&admitted_by(&plain(), &stores)), ["data/second"]);
}

#[test]
fn a_refused_store_keeps_no_other_out() {
    let stores = [
        store("other", "first", 1, &json!({"keyPrefix": "web:"})),
        store("data", "second", 2, &json!({"keyPrefix": "web:"})),
    ];
    let admissions = admitted_by(&plain(), &stores);
    assert_eq!(names(&admissions), ["data/second"]);
    assert_eq!(admissions.refused["other-first"].reason, "NotAllowed");
}

#[test]
fn another_namespace_needs_the_layers_leave() {
    let stores: Vec<DeclaredUse> =
        ["data", "shop", "office", "nowhere"].iter().map(|space| store(space, space, 1, &json!({}))).collect();
    let of = |access: Value| {
        let layer = layer(&json!({"mode": "Sentinel", "access": {"namespaces": access}}));
        names(&admitted_by(&layer, &stores)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(json!({})), ["data/data"]);
    assert_eq!(of(json!({"from": "Same"})), ["data/data"]);
    assert_eq!(of(json!({"from": "All"})), ["data/data", "nowhere/nowhere", "office/office", "shop/shop"]);
    assert_eq!(of(json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}})), ["data/data", "shop/shop"]);
    let without =
        json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}});
    assert_eq!(of(without), ["data/data", "office/office"], "a namespace that nobody knows has no leave");
}

#[test]
fn a_layer_that_would_drop_sessions_is_refused_with_what_was_measured() {
    for (spec, figure) in [
        (json!({"mode": "Standalone", "purpose": "Cache"}), "none of 1,000"),
        (json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}}), "34 of 20,000"),
        (
            json!({"mode": "Sentinel", "purpose": "Sessions", "memory": {"evictionPolicy": "volatile-lru"}}),
            "18 of 20,000",
        ),
        (
            json!({"mode": "Sentinel", "purpose": "Sessions", "memory": {"evictionPolicy": "volatile-random"}}),
            "4 of 1,000",
        ),
    ] {
        let admissions = admitted_by(&layer(&spec), &[store("data", "web", 1, &json!({}))]);
        let refusal = &admissions.refused["data-web"];
        assert_eq!(refusal.reason, "Evicts");
        assert!(refusal.message.contains(figure), "{}", refusal.message);
    }
    let kept = layer(&json!({"mode": "Sentinel", "memory": {"evictionPolicy": "volatile-ttl"}}));
    assert_eq!(names(&admitted_by(&kept, &[store("data", "web", 1, &json!({}))])), ["data/web"]);
}

#[test]
fn no_more_replicas_can_confirm_than_there_are() {
    let refused = admitted_by(&plain(), &[store("data", "web", 1, &json!({"revokeReplicas": 3}))]).refused;
    assert_eq!(refused["data-web"].reason, "TooFewReplicas");
    let standalone = layer(&json!({"mode": "Standalone"}));
    assert_eq!(admitted_by(&standalone, &[store("data", "web", 1, &json!({}))]).admitted[0].accepted.wait_replicas, 0);
}

#[test]
fn a_dedicated_layer_serves_its_own_store_only() {
    let dedicated = |owner: &str| -> DataLayer {
        let metadata = json!({"name": "web-sessions", "namespace": "data", "uid": "layer-1", "ownerReferences": [
            {"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "name": "web", "uid": owner, "controller": true}]});
        let object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": metadata, "spec": {"mode": "Sentinel"}});
        serde_json::from_value(object).unwrap()
    };
    let mut web = store("data", "web", 1, &json!({}));
    let UseSpec::SessionStore(spec) = &mut web.spec else { panic!() };
    spec.layer = None;
    assert_eq!(names(&admitted_by(&dedicated("data-web"), std::slice::from_ref(&web))), ["data/web"]);
    assert_eq!(admitted_by(&dedicated("another"), &[web]).refused["data-web"].reason, "NameTaken");
}

#[test]
fn a_layer_serves_a_bounded_number_of_stores_and_the_oldest_stay() {
    let stores: Vec<DeclaredUse> = (0..=500).map(|n| store("data", &format!("s{n:03}"), 1, &json!({}))).collect();
    let admissions = admitted_by(&plain(), &stores);
    assert_eq!(admissions.admitted.len(), 500);
    assert_eq!(admissions.refused["data-s500"].reason, "LayerFull");
}

/// A layer that is judged again and again, as its list of tenants goes on.
struct Town {
    layer: DataLayer,
    tenants: Option<Vec<Tenant>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    unreadable: BTreeSet<String>,
    emptied: Emptied,
    clock: i64,
}

impl Town {
    fn new(namespaces: &Value) -> Self {
        let layer = layer(&json!({"mode": "Sentinel", "access": {"namespaces": namespaces}}));
        let labels = BTreeMap::new();
        Self { layer, tenants: None, labels, unreadable: BTreeSet::new(), emptied: Emptied::new(), clock: 0 }
    }

    /// The audit finds no key of any store that left.
    fn empty(&mut self) {
        let left =
            self.tenants.iter().flatten().filter_map(|tenant| Some((tenant.prefix.clone(), tenant.left.as_ref()?.0)));
        self.emptied = left.collect();
    }

    /// `sessions=yes` for exactly these.
    fn let_in(&mut self, namespaces: &[&str]) {
        let leave = || BTreeMap::from([("sessions".to_owned(), "yes".to_owned())]);
        self.labels = namespaces.iter().map(|namespace| ((*namespace).to_owned(), leave())).collect();
    }

    fn judge(&mut self, stores: &[&DeclaredUse]) -> Admissions {
        self.clock += 1;
        let now = Timestamp::from_second(self.clock).unwrap();
        let labels = |namespace: &str| Some(self.labels.get(namespace).cloned().unwrap_or_default());
        let (host, tenants) = (host(&self.layer), self.tenants.as_deref());
        let admissions = admit(&host, tenants, stores.iter().copied(), &self.unreadable, &self.emptied, &labels, now);
        self.tenants = Some(admissions.tenants.clone());
        admissions
    }
}

pub fn by_selector() -> Value {
    json!({"from": "Selector", "selector": {"matchLabels": {"sessions": "yes"}}})
}

fn prefixes(admissions: &Admissions) -> Vec<&str> {
    admissions.admitted.iter().map(|it| it.accepted.policy.prefix()).collect()
}

#[test]
fn an_older_store_that_gets_leave_later_takes_nothing_from_one_that_is_served() {
    let mut town = Town::new(&by_selector());
    let (evil, shop) = (store("evil", "shop", 1, &json!({})), store("good", "shop", 2, &json!({})));
    town.let_in(&["good"]);
    let first = town.judge(&[&evil, &shop]);
    assert_eq!((names(&first), first.refused["evil-shop"].reason), (vec!["good/shop"], "NotAllowed"));
    town.let_in(&["good", "evil"]);
    let second = town.judge(&[&evil, &shop]);
    assert_eq!(second.admitted[0], first.admitted[0], "the tenant keeps what it has");
    assert_eq!(prefixes(&second), ["good/shop:", "evil/shop:"], "no two namespaces share a prefix");
}

#[test]
fn of_one_namespace_the_store_that_is_served_stays_whatever_becomes_of_an_older_one() {
    let mut town = Town::new(&json!({}));
    let held = json!({"keyPrefix": "web:", "revokeReplicas": 3});
    let (older, newer) = (store("data", "a", 1, &held), store("data", "b", 2, &json!({"keyPrefix": "web:"})));
    let first = town.judge(&[&older, &newer]);
    assert_eq!((names(&first), first.refused["data-a"].reason), (vec!["data/b"], "TooFewReplicas"));
    let corrected = store("data", "a", 1, &json!({"keyPrefix": "web:"}));
    let second = town.judge(&[&corrected, &newer]);
    assert_eq!((names(&second), second.refused["data-a"].reason), (vec!["data/b"], "PrefixOverlaps"));
    assert!(second.refused["data-a"].message.contains("data/b"));
    // A tenant that is wrong for a while keeps its place.
    let wrong = store("data", "b", 2, &held);
    let third = town.judge(&[&corrected, &wrong]);
    assert_eq!((names(&third), third.refused["data-a"].reason), (vec![], "PrefixOverlaps"));
    // One that cannot be read does, too, although the audit finds no key of those that left.
    town.unreadable.insert("data-b".to_owned());
    assert_eq!(names(&town.judge(&[&corrected])), Vec::<&str>::new());
    town.empty();
    assert_eq!(names(&town.judge(&[&corrected])), Vec::<&str>::new());
    town.unreadable.clear();
    let gone = town.judge(&[&corrected]);
    assert_eq!(
        (names(&gone), gone.refused["data-a"].reason),
        (vec![], "PrefixOverlaps"),
        "its keys may still be there"
    );
    assert!(gone.refused["data-a"].message.contains("data/b, which left"), "{gone:?}");
    town.empty();
    assert_eq!(names(&town.judge(&[&corrected])), ["data/a"], "no key is left: the next in line");
}

/// A person may have edited the list.
#[test]
fn what_left_another_namespace_takes_no_place_of_a_tenant() {
    let mut town = Town::new(&by_selector());
    let shop = store("data", "shop", 1, &json!({}));
    let first = town.judge(&[&shop]);
    for prefix in ["shop:", "shop:inner:"] {
        let tenant = first.tenants[0].clone();
        let left = Some(tenant.since.clone());
        let (namespace, uid, prefix) = ("evil".to_owned(), "evil-shop".to_owned(), prefix.to_owned());
        let of_another = Tenant { namespace, uid, prefix, left, ..tenant.clone() };
        town.tenants = Some(vec![of_another, tenant]);
        let second = town.judge(&[&shop]);
        assert_eq!((&second.admitted, &second.tenants), (&first.admitted, &first.tenants));
    }
}

#[test]
fn a_full_layer_lets_no_older_store_in_at_a_tenants_cost() {
    let mut town = Town::new(&by_selector());
    let mut stores: Vec<DeclaredUse> = (0..500).map(|n| store("data", &format!("s{n:03}"), 9, &json!({}))).collect();
    stores.push(store("good", "older", 1, &json!({})));
    let all: Vec<&DeclaredUse> = stores.iter().collect();
    assert_eq!(town.judge(&all).refused["good-older"].reason, "NotAllowed");
    town.let_in(&["good"]);
    let second = town.judge(&all);
    assert_eq!((second.admitted.len(), second.refused["good-older"].reason), (500, "LayerFull"));
}

#[test]
fn a_store_that_loses_its_leave_is_refused_and_comes_back_to_its_keys() {
    let mut town = Town::new(&by_selector());
    let (first, second) =
        (store("good", "a", 1, &json!({"keyPrefix": "w:"})), store("good", "b", 2, &json!({"keyPrefix": "w:"})));
    town.let_in(&["good"]);
    assert_eq!(names(&town.judge(&[&first, &second])), ["good/a"]);
    town.let_in(&[]);
    let revoked = town.judge(&[&first, &second]);
    assert_eq!((names(&revoked), revoked.refused["good-a"].reason), (vec![], "NotAllowed"));
    town.let_in(&["good"]);
    assert_eq!(names(&town.judge(&[&second])), Vec::<&str>::new(), "the keys of the first may still be there");
    assert_eq!(names(&town.judge(&[&first, &second])), ["good/a"]);
    town.let_in(&[]);
    town.judge(&[&first, &second]);
    town.empty();
    town.let_in(&["good"]);
    assert_eq!(names(&town.judge(&[&second])), ["good/b"]);
    assert_eq!(names(&town.judge(&[&first, &second])), ["good/b"]);
}

/// A16, within one namespace.
#[test]
fn a_prefix_of_a_store_that_left_is_for_one_of_its_kind_and_name_until_no_key_is_under_it() {
    let mut town = Town::new(&json!({}));
    let prefix = json!({"keyPrefix": "web:"});
    let (first, other) = (store("data", "first", 1, &prefix), store("data", "other", 2, &prefix));
    let inner = store("data", "inner", 3, &json!({"keyPrefix": "web:admin:"}));
    town.judge(&[&first]);
    let left = town.judge(&[&other, &inner]);
    assert_eq!((names(&left), left.refused.len()), (vec![], 2), "{left:?}");
    // What a report of an earlier time says counts for nothing.
    town.emptied = Emptied::from([("web:".to_owned(), Timestamp::UNIX_EPOCH)]);
    assert_eq!(names(&town.judge(&[&other, &inner])), Vec::<&str>::new());
    // A deployment tool makes it again.
    let mut again = store("data", "first", 9, &prefix);
    again.metadata.uid = Some("made again".to_owned());
    assert_eq!(names(&town.judge(&[&other, &again])), ["data/first"]);
    town.judge(&[]);
    town.empty();
    assert_eq!(names(&town.judge(&[&inner, &other])), ["data/other"]);
}

/// Its former prefix is kept next to the new one, and the list stays as it is from pass to pass.
#[test]
fn a_store_that_changes_its_prefix_leaves_the_former_one_and_may_have_it_back() {
    let mut town = Town::new(&json!({}));
    let with = |prefix: &str| store("data", "web", 1, &json!({"keyPrefix": prefix}));
    town.judge(&[&with("a:")]);
    let second = town.judge(&[&with("b:")]);
    assert_eq!(prefixes(&second), ["b:"]);
    assert_eq!(
        second.tenants.iter().map(|it| (it.prefix.as_str(), it.left.is_some())).collect::<Vec<_>>(),
        [("a:", true), ("b:", false)]
    );
    assert_eq!(town.judge(&[&with("b:")]).tenants, second.tenants);
    let back = town.judge(&[&with("a:")]);
    assert_eq!(prefixes(&back), ["a:"]);
    assert_eq!(town.judge(&[&with("a:")]).tenants, back.tenants);
}

#[test]
fn a_namespace_keeps_a_bounded_number_of_prefixes_of_stores_that_left() {
    let mut town = Town::new(&json!({}));
    for number in 0..499 {
        town.judge(&[&store("data", &format!("s{number}"), 1, &json!({}))]);
    }
    let last = store("data", "last", 1, &json!({}));
    assert_eq!(names(&town.judge(&[&last])), ["data/last"], "499 left before");
    let refused = town.judge(&[&store("data", "one-more", 1, &json!({}))]);
    assert_eq!(refused.refused["data-one-more"].reason, "LayerFull");
    town.empty();
    assert_eq!(names(&town.judge(&[&store("data", "one-more", 1, &json!({}))])), ["data/one-more"]);
}

/// A store that an operator without lists served: its status has a user, and no admission.
fn served(mut store: DeclaredUse) -> DeclaredUse {
    store.status = Some(
        serde_json::from_value(json!({"layer": {"namespace": "data", "name": "shared"}, "user": "ss.shop.web"}))
            .unwrap(),
    );
    store
}

#[test]
fn a_store_that_was_served_before_there_were_lists_keeps_its_prefix_and_no_other_namespace_ever_gets_it() {
    let mut town = Town::new(&json!({"from": "All"}));
    let shop = served(store("shop", "web", 5, &json!({})));
    let squatter = store("data", "web", 1, &json!({}));
    let first = town.judge(&[&squatter, &shop]);
    assert_eq!((names(&first), prefixes(&first)), (vec!["shop/web"], vec!["web:"]));
    assert_eq!(first.refused["data-web"].reason, "PrefixOverlaps");
    // It is deleted: what it wrote is still there.
    let gone = town.judge(&[&squatter]);
    assert_eq!((names(&gone), gone.refused["data-web"].reason), (vec![], "PrefixOverlaps"));
    assert!(gone.refused["data-web"].message.contains("namespace shop"), "{gone:?}");
    let inner = store("data", "b", 1, &json!({"keyPrefix": "web:admin:"}));
    assert_eq!(names(&town.judge(&[&inner])), Vec::<&str>::new());
    // The layer's owner says that nothing is left.
    town.tenants = Some(vec![]);
    assert_eq!(names(&town.judge(&[&squatter])), ["data/web"]);
}

#[test]
fn a_store_that_had_lost_its_leave_when_the_first_list_was_made_leaves_its_prefix_to_its_namespace() {
    let mut town = Town::new(&json!({}));
    let (shop, web) = (served(store("shop", "web", 5, &json!({}))), store("data", "web", 1, &json!({})));
    let first = town.judge(&[&web, &shop]);
    assert_eq!((names(&first), first.refused["data-web"].reason), (vec![], "PrefixOverlaps"));
    assert_eq!(first.refused["shop-web"].reason, "NotAllowed");
}

#[test]
fn what_a_store_says_of_itself_takes_no_place_of_a_layer_that_has_a_list() {
    let mut town = Town::new(&json!({"from": "All"}));
    let web = store("data", "web", 5, &json!({}));
    assert_eq!(prefixes(&town.judge(&[&web])), ["web:"]);
    let forged = served(store("evil", "web", 1, &json!({})));
    let second = town.judge(&[&forged, &web]);
    assert_eq!(prefixes(&second), ["web:", "evil/web:"]);
    let alone = town.judge(&[&forged]);
    assert_eq!(prefixes(&alone), ["evil/web:"], "what data/web wrote is not shown to another namespace");
}

#[test]
fn a_newcomer_is_served_only_once_the_list_that_has_it_is_stored() {
    let mut town = Town::new(&json!({}));
    let (web, api) = (store("data", "web", 1, &json!({})), store("data", "api", 2, &json!({})));
    let stored = town.judge(&[&web]).tenants;
    let (admissions, waiting) = town.judge(&[&web, &api]).as_stored(Some(&stored));
    assert_eq!((names(&admissions), &admissions.tenants), (vec!["data/web"], &stored));
    assert_eq!(waiting.iter().map(|it| it.accepted.name.as_str()).collect::<Vec<_>>(), ["api"]);
}

#[test]
fn a_list_that_was_edited_by_hand_gives_no_two_stores_one_prefix() {
    let mut town = Town::new(&json!({"from": "All"}));
    let (web, shop) = (store("data", "web", 1, &json!({})), store("shop", "web", 2, &json!({})));
    let mut list = town.judge(&[&web, &shop]).tenants;
    for tenant in &mut list {
        tenant.prefix = "web:".to_owned();
    }
    town.tenants = Some(list);
    let admissions = town.judge(&[&web, &shop]);
    assert_eq!((prefixes(&admissions), admissions.refused.len()), (vec!["web:"], 1), "{admissions:?}");
}
