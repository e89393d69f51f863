//! Rate limit policies that are wrong by themselves: admission and validation refuse each.

use serde_json::{Value, json};

/// Specifications, and words of the reason that admission gives.
pub fn bad_policies() -> Vec<(Value, &'static str)> {
    let limit = |further: Value| {
        let mut limit = json!({"name": "a", "quota": 10, "window": "1m"});
        for (field, value) in further.as_object().unwrap() {
            limit[field] = value.clone();
        }
        limit
    };
    let one = |further: Value| json!({"limits": [limit(further)]});
    let many: Vec<Value> =
        (0..17).map(|number| json!({"name": format!("l{number}"), "quota": 1, "window": "1s"})).collect();
    vec![
        (json!({"limits": []}), "limits"),
        (json!({"limits": many}), "limits"),
        (json!({"limits": [limit(json!({})), limit(json!({}))]}), "limits"),
        (one(json!({"quota": 0})), "quota"),
        (one(json!({"quota": -1})), "quota"),
        (one(json!({"quota": 1_000_000_001})), "quota"),
        (one(json!({"quota": 101, "window": "1ms"})), "100 for each millisecond"),
        (one(json!({"window": "0s"})), "1ms"),
        (one(json!({"window": "999us"})), "1ms"),
        (one(json!({"window": "8785h"})), "8784h"),
        (one(json!({"window": "-1m"})), "1ms"),
        (one(json!({"burst": 0})), "burst"),
        (one(json!({"quota": 1, "window": "8784h", "burst": 2})), "8784h"),
        (one(json!({"algorithm": "FixedWindow", "burst": 5})), "burst is only for"),
        (one(json!({"algorithm": "SlidingLog", "burst": 5})), "burst is only for"),
        (one(json!({"leaky": "Meter"})), "leaky is only for LeakyBucket"),
        (one(json!({"align": "Clock"})), "align is only for FixedWindow"),
        (one(json!({"maxEntries": 5})), "maxEntries is only for SlidingLog"),
        (one(json!({"algorithm": "LeakyBucket", "leaky": "Shaper", "quota": 100, "window": "99ms"})), "Shaper"),
        (one(json!({"algorithm": "SlidingLog", "quota": 1_001})), "maxEntries"),
        (one(json!({"algorithm": "SlidingLog", "quota": 20, "maxEntries": 19})), "maxEntries"),
        (one(json!({"algorithm": "SlidingCounter", "quota": 1_000_000, "window": "3001s"})), "SlidingCounter"),
        (one(json!({"algorithm": "Guess"})), "algorithm"),
        (one(json!({"name": "A"})), "name must hold"),
        (one(json!({"name": "-a"})), "name must hold"),
        (one(json!({"name": ""})), "name must hold"),
        (json!({"limits": [limit(json!({}))], "shards": 11}), "shards"),
        (json!({"limits": [limit(json!({"burst": 3}))], "shards": 4}), "shards"),
        (json!({"limits": [limit(json!({}))], "shards": 65}), "shards"),
        (json!({"limits": [limit(json!({}))], "shards": 0}), "shards"),
        (json!({"limits": [limit(json!({}))], "keyPrefix": "web{a}:"}), "keyPrefix"),
        (json!({"limits": [limit(json!({}))], "onStoreError": "Perhaps"}), "onStoreError"),
        (json!({"limits": [limit(json!({}))], "export": {"program": "Nginx"}}), "export"),
        (json!({"limits": [limit(json!({}))], "export": {}}), "program"),
        (json!({"limits": [limit(json!({}))], "export": {"program": "Limitador"}}), "needs keyPrefix 'namespace:'"),
        (
            json!({"limits": [limit(json!({}))], "export": {"program": "Limitador"}, "keyPrefix": "namespace:"}),
            "access.scripts true",
        ),
        (
            json!({"limits": [limit(json!({}))], "export": {"program": "Limitador"}, "access": {"scripts": true}}),
            "needs keyPrefix 'namespace:'",
        ),
        (
            json!({"limits": [limit(json!({}))], "layer": {"dedicated": {"mode": "Sentinel", "purpose": "Cache"}}}),
            "RateLimits",
        ),
    ]
}

/// Old and new specification, and words of the reason.
pub fn bad_policy_changes() -> Vec<(Value, Value, &'static str)> {
    // No such layer: nothing is made.
    let plain = json!({"layer": {"name": "nowhere"}, "limits": [{"name": "a", "quota": 10, "window": "1m"}]});
    let with = |field: &str, value: Value| {
        let mut spec = plain.clone();
        spec[field] = value;
        spec
    };
    vec![
        (plain.clone(), with("keyPrefix", json!("other:")), "keyPrefix cannot be changed"),
        (
            plain.clone(),
            with("layer", json!({"name": "shared"})),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
        (with("access", json!({"rotation": 2})), with("access", json!({"rotation": 1})), "only grows"),
    ]
}
