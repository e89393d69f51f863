//! Caches as objects: what is admitted, what is refused and why, what follows from one, and whom they may live with.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::uses::DeclaredUse;
use redoubt::model::audit::MemoryBudget;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::model::uses::Advice;
use redoubt::model::{Policy, UseKind};
use redoubt::validate::uses::tenancy::{Admissions, Emptied, admit};
use redoubt::validate::uses::{ValidatedUse, layer_of, validate};
use serde_json::{Value, json};

use crate::session_stores::{by_selector, host, layer};
use crate::support::bad_caches::{bad_cache_changes, bad_caches};

fn object(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "CacheNamespace", "spec": spec,
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "generation": 2},
    })
}

fn parse(spec: &Value) -> Result<CacheNamespace, String> {
    serde_json::from_value(object("shop", "web", spec)).map_err(|error| error.to_string())
}

fn validated(spec: &Value) -> ValidatedUse {
    validate(&parse(spec).unwrap().into(), 2).unwrap_or_else(|faults| panic!("{spec}: {faults:?}"))
}

fn policy(accepted: &ValidatedUse) -> CachePolicy {
    let Policy::Caches(policy) = &accepted.policy else { panic!("{accepted:?}") };
    policy.clone()
}

#[test]
fn good_caches_are_accepted_and_their_defaults_are_those_that_are_documented() {
    let least = CachePolicy {
        owner: "shop/web".to_owned(),
        generation: 2,
        prefix: "web:".to_owned(),
        ttl_ms: 300_000,
        max_ttl_ms: 86_400_000,
        jitter_percent: 10,
        stale_ms: 0,
        negative_ms: 5_000,
        lease_ms: 5_000,
        early_percent: 100,
        max_entry_bytes: 1 << 20,
        channel: "cache:invalidate:web:".to_owned(),
    };
    let year = 8_784 * 3_600_000;
    for (spec, expected) in [
        (json!({"ttl": "5m"}), least.clone()),
        (json!({"ttl": "1ms"}), CachePolicy { ttl_ms: 1, negative_ms: 1, ..least.clone() }),
        (json!({"ttl": "48h"}), CachePolicy { ttl_ms: 172_800_000, max_ttl_ms: 172_800_000, ..least.clone() }),
        (
            json!({"ttl": "8784h", "staleFor": "8784h", "negativeTtl": "8784h", "jitter": 90, "earlyRefresh": 1000,
                "leaseTimeout": "10m", "maxEntryBytes": "2Mi"}),
            CachePolicy {
                ttl_ms: year,
                max_ttl_ms: year,
                stale_ms: year,
                negative_ms: year,
                jitter_percent: 90,
                early_percent: 1_000,
                lease_ms: 600_000,
                max_entry_bytes: 2 << 20,
                ..least.clone()
            },
        ),
        (
            json!({"ttl": "5m", "maxTtl": "5m", "staleFor": "0s", "negativeTtl": "0s", "jitter": 0, "earlyRefresh": 0,
                "leaseTimeout": "10ms", "maxEntryBytes": 1}),
            CachePolicy {
                max_ttl_ms: 300_000,
                negative_ms: 0,
                jitter_percent: 0,
                early_percent: 0,
                lease_ms: 10,
                max_entry_bytes: 1,
                ..least.clone()
            },
        ),
        (
            json!({"ttl": "5m", "keyPrefix": "shop:v1:", "invalidation": {"channel": "news:shop:v1:", "tracking": false}}),
            CachePolicy { prefix: "shop:v1:".to_owned(), channel: "news:shop:v1:".to_owned(), ..least.clone() },
        ),
    ] {
        parse(&spec).unwrap().validate_cel().unwrap_or_else(|errors| panic!("{spec}: {errors:?}"));
        let accepted = validated(&spec);
        assert_eq!(policy(&accepted), expected, "{spec}");
        assert_eq!(accepted.binding["ttl-ms"], expected.ttl_ms.to_string());
        assert!(!accepted.scripts && !accepted.tracking);
    }
    assert!(validated(&json!({"ttl": "5m", "invalidation": {"tracking": true}})).tracking);
    assert_eq!(validated(&json!({"ttl": "5m"})).budget, None);
    for (on_budget, shrinks) in [(json!("Report"), false), (json!("Shrink"), true), (Value::Null, false)] {
        let spec = json!({"ttl": "5m", "memoryBudget": "64Mi", "onBudget": on_budget});
        parse(&spec).unwrap().validate_cel().unwrap_or_else(|errors| panic!("{spec}: {errors:?}"));
        assert_eq!(validated(&spec).budget, Some(MemoryBudget { bytes: 64 << 20, shrinks }), "{spec}");
    }
    assert_eq!(layer_of(&parse(&json!({"ttl": "5m"})).unwrap().into()), ("shop".to_owned(), "web-cache".to_owned()));
}

#[test]
fn bad_caches_are_refused_with_the_reason_by_admission_and_by_validation() {
    for (spec, reason) in bad_caches() {
        // What does not parse is refused by the schema.
        let Ok(cache) = parse(&spec) else { continue };
        if let Err(errors) = cache.validate_cel() {
            assert!(format!("{errors:?}").contains(reason), "{spec}: {errors:?}");
        }
        let is_layers = spec.get("layer").is_some() || spec.get("access").is_some();
        assert!(validate(&cache.into(), 2).is_err() || is_layers, "accepted by validation: {spec}");
    }
    for (old, new, reason) in bad_cache_changes() {
        let refused = parse(&new).unwrap().validate_cel_update(&parse(&old).unwrap());
        assert!(format!("{refused:?}").contains(reason), "{old} to {new}: {refused:?}");
    }
}

/// A use that names the layer of the tests. `made`: seconds of its creation.
fn tenant(kind: &str, namespace: &str, name: &str, made: u8, spec: &Value) -> DeclaredUse {
    let mut value = object(namespace, name, spec);
    value["kind"] = json!(kind);
    value["spec"]["layer"] = json!({"name": "shared", "namespace": "data"});
    value["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{made:02}Z"));
    DeclaredUse::read(UseKind::of(kind).unwrap(), &value).unwrap()
}

fn cache(name: &str, made: u8, further: &Value) -> DeclaredUse {
    let mut spec = json!({"ttl": "5m"});
    for (field, value) in further.as_object().unwrap() {
        spec[field] = value.clone();
    }
    tenant("CacheNamespace", "data", name, made, &spec)
}

fn sessions(name: &str, made: u8) -> DeclaredUse {
    tenant("SessionStore", "data", name, made, &json!({"idleTimeout": "30m"}))
}

fn admitted(layer: &DataLayer, before: Option<&Admissions>, uses: &[DeclaredUse]) -> Admissions {
    let labels = |_: &str| Some(BTreeMap::from([("sessions".to_owned(), "yes".to_owned())]));
    let tenants = before.map(|before| before.tenants.as_slice());
    admit(&host(layer), tenants, uses.iter(), &BTreeSet::new(), &Emptied::new(), &labels, Timestamp::UNIX_EPOCH)
}

fn shared(policy: &str) -> DataLayer {
    layer(
        &json!({"mode": "Sentinel", "access": {"application": false, "namespaces": by_selector()}, "memory": {"evictionPolicy": policy}}),
    )
}

fn names(admissions: &Admissions) -> Vec<&str> {
    let mut names: Vec<&str> = admissions.admitted.iter().map(|it| it.accepted.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_cache_of_another_namespace_has_it_in_its_prefix_and_in_its_channel() {
    let spec = json!({"ttl": "5m", "keyPrefix": "web:", "invalidation": {"channel": "news:web:"}});
    let uses = [tenant("CacheNamespace", "shop", "web", 1, &spec)];
    let admissions = admitted(&shared("volatile-ttl"), None, &uses);
    let accepted = &admissions.admitted[0].accepted;
    assert_eq!((accepted.policy.prefix(), accepted.policy.channel()), ("shop/web:", Some("news:shop/web:")));
}

/// A user may use every channel whose name begins with its prefix.
#[test]
fn no_tenants_prefix_covers_the_channel_of_a_cache_and_who_came_first_stays() {
    let layer = shared("volatile-ttl");
    let greedy = tenant("SessionStore", "data", "cache", 9, &json!({"idleTimeout": "30m"}));
    let web = cache("web", 5, &json!({}));
    let first = admitted(&layer, None, std::slice::from_ref(&web));
    let then = admitted(&layer, Some(&first), &[greedy.clone(), web.clone()]);
    assert_eq!(names(&then), ["web"]);
    assert_eq!(then.refused["data-cache"].reason, "ChannelOverlaps");
    assert_eq!(then.tenants.len(), 1, "a refused newcomer takes no place");

    let first = admitted(&layer, None, std::slice::from_ref(&greedy));
    let then = admitted(&layer, Some(&first), &[greedy.clone(), web]);
    assert_eq!(names(&then), ["cache"]);
    assert!(then.refused["data-web"].message.contains("another invalidation.channel"), "{:?}", then.refused);
    let elsewhere = cache("web", 5, &json!({"invalidation": {"channel": "news:web:"}}));
    assert_eq!(names(&admitted(&layer, Some(&first), &[greedy, elsewhere])), ["cache", "web"]);

    // Neither prefix begins the other, and the channels are one.
    let a = cache("web", 1, &json!({"invalidation": {"channel": "x:a:web:"}}));
    let b = cache("b", 2, &json!({"keyPrefix": "a:web:", "invalidation": {"channel": "x:a:web:"}}));
    let both = admitted(&layer, None, &[a, b]);
    assert_eq!((names(&both), both.refused["data-b"].reason), (vec!["web"], "ChannelOverlaps"));
}

#[test]
fn tracking_needs_a_layer_without_other_keys() {
    let layer = shared("volatile-ttl");
    let tracks = cache("web", 1, &json!({"invalidation": {"tracking": true}}));
    let (plain, store) = (cache("api", 2, &json!({})), sessions("login", 3));
    let alone = admitted(&layer, None, std::slice::from_ref(&tracks));
    assert_eq!(names(&alone), ["web"]);
    let with_newcomers = admitted(&layer, Some(&alone), &[tracks.clone(), plain.clone(), store.clone()]);
    assert_eq!(names(&with_newcomers), ["web"], "who tracks would see what a newcomer has");
    assert_eq!(with_newcomers.refused["data-login"].reason, "TrackingShared");

    let others = admitted(&layer, None, &[plain.clone(), store.clone()]);
    let switched_on = admitted(&layer, Some(&others), &[tracks.clone(), plain, store]);
    assert_eq!(names(&switched_on), ["api", "login"]);
    assert!(switched_on.refused["data-web"].message.contains("serves data/"), "{:?}", switched_on.refused);

    let with_application = crate::session_stores::layer(&json!({"mode": "Sentinel"}));
    let refused = admitted(&with_application, None, &[tracks]);
    assert!(refused.refused["data-web"].message.contains("access.application"), "{:?}", refused.refused);
}

#[test]
fn a_layer_that_never_evicts_is_warned_of_and_one_whose_sessions_would_go_refuses_the_cache() {
    let advice = |policy: &str, uses: &[DeclaredUse]| {
        let admissions = admitted(&shared(policy), None, uses);
        let found = admissions.admitted.iter().find(|it| it.accepted.kind == UseKind::CacheNamespace).unwrap();
        found.advice.as_ref().map(|advice| (advice.reason, advice.message.clone()))
    };
    let web = || cache("web", 1, &json!({}));
    let (reason, message) = advice("noeviction", &[web()]).unwrap();
    assert_eq!(reason, "EvictionPolicy");
    assert!(message.contains("refuses writes"), "{message}");
    assert_eq!(advice("volatile-ttl", &[web()]), None);

    let evicting = layer(&json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}}));
    assert_eq!(names(&admitted(&evicting, None, &[web()])), ["web"]);
    let store = sessions("login", 2);
    let with_sessions = admitted(&shared("noeviction"), None, std::slice::from_ref(&store));
    let both = admitted(&evicting, Some(&with_sessions), &[store, web()]);
    assert!(both.admitted.is_empty());
    assert_eq!(both.refused["data-login"].reason, "Evicts");
    assert_eq!(both.refused["data-web"].reason, "Evicts");
    assert!(both.refused["data-web"].message.contains("34 of 20,000"), "{}", both.refused["data-web"].message);
}

#[test]
fn under_volatile_ttl_caches_should_end_before_sessions_and_sessions_before_limits() {
    let limits = |window: &str| {
        let spec = json!({"limits": [{"name": "a", "quota": 10, "window": "1s"}, {"name": "b", "quota": 10, "window": window}]});
        tenant("RateLimitPolicy", "data", "api", 3, &spec)
    };
    let advised = |policy: &str, uses: &[DeclaredUse]| -> Vec<(String, Advice)> {
        let admissions = admitted(&shared(policy), None, uses);
        assert_eq!(admissions.admitted.len(), uses.len(), "{:?}", admissions.refused);
        admissions.admitted.into_iter().filter_map(|it| Some((it.accepted.name, it.advice?))).collect()
    };
    let advice = |policy: &str, uses: &[DeclaredUse]| -> Vec<(String, &'static str)> {
        advised(policy, uses).into_iter().map(|(name, advice)| (name, advice.reason)).collect()
    };
    let short = || cache("web", 1, &json!({"maxTtl": "10m", "staleFor": "10m"}));
    let in_order = [short(), sessions("login", 2), limits("24h")];
    assert_eq!(advice("volatile-ttl", &in_order), []);
    // `maxTtl` is a day where nothing is said.
    let long = [cache("web", 1, &json!({})), sessions("login", 2), limits("48h")];
    assert_eq!(advice("volatile-ttl", &long), [("web".to_owned(), "TtlOrder")]);
    let stale = [cache("web", 1, &json!({"maxTtl": "10m", "staleFor": "20m"})), sessions("login", 2)];
    assert_eq!(advice("volatile-ttl", &stale), [("web".to_owned(), "TtlOrder")]);
    let small = [sessions("login", 2), limits("1m")];
    assert_eq!(advice("volatile-ttl", &small), [("login".to_owned(), "TtlOrder")]);
    let message = &advised("volatile-ttl", &small)[0].1.message;
    assert!(message.contains(" live up to 30m, ") && message.contains(" only 1m: "), "{message}");
    assert_eq!(advice("noeviction", &small), [("api".to_owned(), "EvictionPolicy")]);
}
