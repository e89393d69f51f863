//! Rate limit policies as objects: what is admitted, what is refused and why, and what follows from one.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use kube::CustomResourceExt as _;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use redoubt::api::uses::DeclaredUse;
use redoubt::model::limit_policy::{Algorithm, LimitMode};
use redoubt::model::purpose::defaults;
use redoubt::model::{Policy, Purpose, UseKind};
use redoubt::validate::uses::tenancy::{Emptied, admit};
use redoubt::validate::uses::{ValidatedUse, layer_of, validate};
use serde_json::{Value, json};

use crate::session_stores::{by_selector, host, layer};
use crate::support::bad_policies::{bad_policies, bad_policy_changes};

fn object(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "RateLimitPolicy", "spec": spec,
        "metadata": {"name": "api", "namespace": namespace, "uid": format!("{namespace}-api"), "generation": 2},
    })
}

fn parse(spec: &Value) -> Result<RateLimitPolicy, String> {
    serde_json::from_value(object("shop", spec)).map_err(|error| error.to_string())
}

fn validated(spec: &Value) -> ValidatedUse {
    validate(&parse(spec).unwrap().into(), 2).unwrap_or_else(|faults| panic!("{spec}: {faults:?}"))
}

fn one(further: &Value) -> Value {
    let mut limit = json!({"name": "a", "quota": 100, "window": "1m"});
    for (field, value) in further.as_object().unwrap() {
        limit[field] = value.clone();
    }
    json!({"limits": [limit]})
}

#[test]
fn a_layer_of_rate_limits_forgets_what_ends_soonest_unless_it_says_otherwise() {
    let policy = |spec: &Value| host(&layer(spec)).eviction_policy().to_owned();
    assert_eq!(policy(&json!({"mode": "Sentinel", "purpose": "RateLimits"})), "volatile-ttl");
    let chosen = json!({"mode": "Sentinel", "purpose": "RateLimits", "memory": {"evictionPolicy": "noeviction"}});
    assert_eq!(policy(&chosen), "noeviction");
    // What the API says of it.
    let definition = serde_json::to_value(DataLayer::crd()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let said = spec["memory"]["properties"]["evictionPolicy"]["description"].as_str().unwrap();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ").replace("purpose ", "");
    let (rest, others) = said.split_once(", `noeviction` for all others").unwrap();
    assert_eq!(others, ".");
    for purpose in [Purpose::Sessions, Purpose::Cache, Purpose::RateLimits, Purpose::AgentContext, Purpose::Mixed] {
        let default = defaults(purpose).eviction_policy;
        let is_named = rest.contains(&format!("`{default}` for `{purpose:?}`"));
        assert_eq!(is_named, default != "noeviction", "{purpose:?} has {default}: {said}");
    }
}

fn limits(accepted: &ValidatedUse) -> Vec<redoubt::model::limit_policy::Limit> {
    let Policy::Limits(policy) = &accepted.policy else { panic!("{accepted:?}") };
    policy.declared().limits.clone()
}

#[test]
fn good_policies_are_accepted_and_their_defaults_are_those_that_are_documented() {
    for (spec, algorithm) in [
        (one(&json!({})), Algorithm::Gcra { burst: 100 }),
        (one(&json!({"algorithm": "GCRA", "burst": 5})), Algorithm::Gcra { burst: 5 }),
        (one(&json!({"algorithm": "TokenBucket", "burst": 1})), Algorithm::TokenBucket { burst: 1 }),
        (one(&json!({"algorithm": "LeakyBucket"})), Algorithm::LeakyMeter { burst: 100 }),
        (one(&json!({"algorithm": "LeakyBucket", "leaky": "Shaper"})), Algorithm::LeakyShaper { burst: 100 }),
        (one(&json!({"algorithm": "SlidingLog"})), Algorithm::SlidingLog { max_entries: 1_000 }),
        (one(&json!({"algorithm": "SlidingCounter"})), Algorithm::SlidingCounter),
        (one(&json!({"algorithm": "FixedWindow"})), Algorithm::FixedWindow),
        (one(&json!({"algorithm": "FixedWindow", "align": "FirstHit"})), Algorithm::FixedWindowFromFirstHit),
        (one(&json!({"quota": 1_000_000_000, "window": "8784h"})), Algorithm::Gcra { burst: 1_000_000_000 }),
    ] {
        let policy = parse(&spec).unwrap();
        policy.validate_cel().unwrap_or_else(|errors| panic!("{spec}: {errors:?}"));
        let accepted = validated(&spec);
        let [limit] = limits(&accepted).try_into().unwrap();
        assert_eq!((limit.algorithm, limit.mode), (algorithm, LimitMode::Enforce), "{spec}");
        assert_eq!((accepted.policy.prefix(), accepted.policy.generation()), ("api:", 2));
        assert_eq!((accepted.binding["on-store-error"].as_str(), accepted.binding["shards"].as_str()), ("Allow", "1"));
        assert!(!accepted.scripts);
    }
    assert_eq!(layer_of(&parse(&one(&json!({}))).unwrap().into()), ("shop".to_owned(), "api-limits".to_owned()));
}

#[test]
fn bad_policies_are_refused_with_the_reason_by_admission_and_by_validation() {
    for (spec, reason) in bad_policies() {
        // What does not parse is refused by the schema.
        let Ok(policy) = parse(&spec) else { continue };
        // The API server's schema knows lists that are maps; this check of the rules does not.
        if let Err(errors) = policy.validate_cel() {
            assert!(format!("{errors:?}").contains(reason), "{spec}: {errors:?}");
        }
        let is_layers = spec.get("layer").is_some();
        assert!(validate(&policy.into(), 2).is_err() || is_layers, "accepted by validation: {spec}");
    }
    for (old, new, reason) in bad_policy_changes() {
        let refused = parse(&new).unwrap().validate_cel_update(&parse(&old).unwrap());
        assert!(format!("{refused:?}").contains(reason), "{old} to {new}: {refused:?}");
    }
}

/// On a layer of another namespace the keys begin with the policy's namespace, and Limitador's do not.
#[test]
fn a_policy_that_serves_limitador_has_the_keys_that_limitador_names() {
    let spec = |layer: Value| {
        let mut spec = one(&json!({}));
        spec["export"] = json!({"program": "Limitador"});
        spec["keyPrefix"] = json!("namespace:");
        spec["access"] = json!({"scripts": true});
        spec["layer"] = layer;
        spec
    };
    assert!(validated(&spec(json!({"name": "shared"}))).export.is_some());
    assert!(validated(&spec(json!({"name": "shared", "namespace": "shop"}))).scripts);
    let elsewhere = spec(json!({"name": "shared", "namespace": "data"}));
    let faults = validate(&parse(&elsewhere).unwrap().into(), 2).unwrap_err();
    assert!(faults.iter().any(|fault| fault.to_string().contains("own namespace")), "{faults:?}");
}

#[test]
fn windows_are_whole_milliseconds() {
    let faults = validate(&parse(&one(&json!({"window": "1500us"}))).unwrap().into(), 2).unwrap_err();
    assert!(faults.iter().any(|fault| fault.to_string().contains("whole milliseconds")), "{faults:?}");
}

/// Prefixes are judged across the kinds of use, and a policy from elsewhere has its namespace in its prefix.
#[test]
fn a_layer_admits_policies_as_it_does_stores() {
    let place = json!({"name": "shared", "namespace": "data"});
    let mut spec = one(&json!({}));
    spec["layer"] = place.clone();
    let use_of = |kind: UseKind, object: Value| DeclaredUse::read(kind, &object).unwrap();
    let uses = [
        use_of(UseKind::RateLimitPolicy, object("data", &spec)),
        use_of(UseKind::RateLimitPolicy, object("shop", &spec)),
        use_of(
            UseKind::SessionStore,
            json!({
                "apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore",
                "metadata": {"name": "api", "namespace": "data", "uid": "store", "creationTimestamp": "2026-01-01T00:00:59Z"},
                "spec": {"idleTimeout": "30m", "layer": place},
            }),
        ),
    ];
    let labels = |_: &str| Some(BTreeMap::from([("sessions".to_owned(), "yes".to_owned())]));
    let open = json!({"mode": "Sentinel", "access": {"namespaces": by_selector()}, "memory": {"evictionPolicy": "volatile-ttl"}});
    let admissions = admit(
        &host(&layer(&open)),
        None,
        uses.iter(),
        &BTreeSet::new(),
        &Emptied::new(),
        &labels,
        Timestamp::UNIX_EPOCH,
    );
    let prefixes: BTreeSet<&str> = admissions.admitted.iter().map(|it| it.accepted.policy.prefix()).collect();
    assert_eq!(prefixes, BTreeSet::from(["api:", "shop/api:"]));
    let refused: Vec<&str> = admissions.refused.values().map(|refusal| refusal.reason).collect();
    assert_eq!(refused, ["PrefixOverlaps"], "one of two of the same prefix, whatever their kinds");
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-random", "volatile-lfu"] {
        let evicting = json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"evictionPolicy": policy}});
        let refused = admit(
            &host(&layer(&evicting)),
            None,
            uses[..1].iter(),
            &BTreeSet::new(),
            &Emptied::new(),
            &labels,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(refused.refused["data-api"].reason, "Evicts", "{policy}");
    }
}
