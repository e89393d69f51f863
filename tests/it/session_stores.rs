//! Which stores a layer serves, and why not the others.

use std::collections::BTreeMap;

use redoubt::api::data_layer::DataLayer;
use redoubt::api::session_store::SessionStore;
use redoubt::validate::session_store::{Admissions, admit};
use serde_json::{Value, json};

fn layer(spec: &Value) -> DataLayer {
    let metadata = json!({"name": "shared", "namespace": "data", "uid": "layer-1"});
    let object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A store of the layer `data/shared`, made in the given second.
fn store(namespace: &str, name: &str, second: u8, further: &Value) -> SessionStore {
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
    serde_json::from_value(object).unwrap()
}

fn admitted_by(layer: &DataLayer, stores: &[SessionStore]) -> Admissions {
    let labels = |namespace: &str| match namespace {
        "shop" => Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
        "office" => Some(BTreeMap::new()),
        _ => None,
    };
    admit(layer, stores.iter(), &labels)
}

fn names(admissions: &Admissions) -> Vec<&str> {
    admissions.admitted.iter().map(|store| store.policy.store.as_str()).collect()
}

fn plain() -> DataLayer {
    layer(&json!({"mode": "Sentinel"}))
}

#[test]
fn a_store_has_safe_defaults() {
    let admissions = admitted_by(&plain(), &[store("data", "web", 0, &json!({}))]);
    let [store] = admissions.admitted.as_slice() else { panic!("{admissions:?}") };
    assert_eq!(
        (store.policy.prefix.as_str(), store.policy.touch_interval_milliseconds, store.policy.generation),
        ("web:", 180_000, 4)
    );
    assert_eq!((store.policy.absolute_lifetime_milliseconds, store.wait_replicas), (2_592_000_000, 1));
    assert_eq!((store.rotation, store.rotation_grace_milliseconds), (0, 3_600_000));
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

#[test]
fn a_refused_store_keeps_nobody_else_out() {
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
    let stores: Vec<SessionStore> =
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
        (json!({"mode": "Standalone", "purpose": "Cache"}), "34 of 20,000"),
        (json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}}), "34 of 20,000"),
        (json!({"mode": "Sentinel", "memory": {"evictionPolicy": "volatile-lru"}}), "18 of 20,000"),
        (json!({"mode": "Sentinel", "memory": {"evictionPolicy": "volatile-random"}}), "18 of 20,000"),
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
    assert_eq!(admitted_by(&standalone, &[store("data", "web", 1, &json!({}))]).admitted[0].wait_replicas, 0);
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
    web.spec.layer = None;
    assert_eq!(names(&admitted_by(&dedicated("data-web"), std::slice::from_ref(&web))), ["data/web"]);
    assert_eq!(admitted_by(&dedicated("another"), &[web]).refused["data-web"].reason, "NameTaken");
}

#[test]
fn a_layer_serves_a_bounded_number_of_stores_and_the_oldest_stay() {
    let stores: Vec<SessionStore> = (0..=500).map(|n| store("data", &format!("s{n:03}"), 1, &json!({}))).collect();
    let admissions = admitted_by(&plain(), &stores);
    assert_eq!(admissions.admitted.len(), 500);
    assert_eq!(admissions.refused["data-s500"].reason, "LayerFull");
}
