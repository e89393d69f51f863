//! Caches that are wrong by themselves: admission and validation refuse each.

use serde_json::{Value, json};

/// Specifications, and words of the reason that admission gives. The object is named `web`.
pub fn bad_caches() -> Vec<(Value, &'static str)> {
    let with = |further: Value| {
        let mut spec = json!({"ttl": "5m"});
        for (field, value) in further.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let channel = |channel: &str| with(json!({"invalidation": {"channel": channel}}));
    let long = format!("{}web:", "x".repeat(189));
    vec![
        (json!({}), "ttl"),
        (with(json!({"ttl": "0s"})), "ttl must be from 1ms to 8784h"),
        // Another spelling of it is read where no API server is.
        (with(json!({"ttl": "999us"})), "ttl"),
        (with(json!({"ttl": "-5m"})), "ttl must be from 1ms to 8784h"),
        (with(json!({"ttl": "8785h"})), "ttl must be from 1ms to 8784h"),
        (with(json!({"ttl": "5 minutes"})), "is not a duration"),
        (with(json!({"ttl": "2h", "maxTtl": "1h"})), "ttl must not be above maxTtl"),
        (with(json!({"maxTtl": "0s"})), "maxTtl must be from 1ms"),
        (with(json!({"maxTtl": "8785h"})), "maxTtl must be from 1ms to 8784h"),
        (with(json!({"maxTtl": "for ever"})), "is not a duration"),
        (with(json!({"jitter": 91})), "jitter"),
        (with(json!({"jitter": -1})), "jitter"),
        (with(json!({"jitter": 200})), "jitter"),
        (with(json!({"staleFor": "-1s"})), "staleFor must be from 0s to 8784h"),
        (with(json!({"staleFor": "8785h"})), "staleFor must be from 0s to 8784h"),
        (with(json!({"staleFor": "forever"})), "is not a duration"),
        (with(json!({"negativeTtl": "25h"})), "negativeTtl must not be above maxTtl"),
        (with(json!({"negativeTtl": "2h", "maxTtl": "1h"})), "negativeTtl must not be above maxTtl"),
        (with(json!({"negativeTtl": "-1s"})), "negativeTtl must be from 0s"),
        (with(json!({"leaseTimeout": "9ms"})), "leaseTimeout must be from 10ms to 10m"),
        (with(json!({"leaseTimeout": "0s"})), "leaseTimeout must be from 10ms to 10m"),
        (with(json!({"leaseTimeout": "601s"})), "leaseTimeout must be from 10ms to 10m"),
        (with(json!({"earlyRefresh": 1_001})), "earlyRefresh"),
        (with(json!({"earlyRefresh": -1})), "earlyRefresh"),
        (with(json!({"maxEntryBytes": 0})), "maxEntryBytes must be from 1 to 2Mi"),
        (with(json!({"maxEntryBytes": "3Mi"})), "maxEntryBytes must be from 1 to 2Mi"),
        (with(json!({"maxEntryBytes": "2MB"})), "maxEntryBytes must be from 1 to 2Mi"),
        (with(json!({"memoryBudget": "1000Ki"})), "memoryBudget"),
        (with(json!({"memoryBudget": "0"})), "memoryBudget"),
        (with(json!({"memoryBudget": "-1Gi"})), "memoryBudget"),
        (with(json!({"memoryBudget": "64MB"})), "write 64M or 64Mi"),
        (with(json!({"onBudget": "Shrink"})), "onBudget needs memoryBudget"),
        (with(json!({"memoryBudget": "64Mi", "onBudget": "Evict"})), "onBudget"),
        (with(json!({"keyPrefix": "web"})), "keyPrefix must begin"),
        (with(json!({"keyPrefix": "web{a}:"})), "keyPrefix must begin"),
        (with(json!({"keyPrefix": "web*:"})), "keyPrefix must begin"),
        (channel("cache:invalidate:api:"), "must end with the key prefix"),
        (channel("cache:invalidate:web"), "must end with the key prefix"),
        (channel("*web:"), "channel must begin with a letter or digit"),
        (channel("cache:[ab]:web:"), "channel must begin with a letter or digit"),
        (channel("cache:?:web:"), "channel must begin with a letter or digit"),
        (channel("cache\\:web:"), "channel must begin with a letter or digit"),
        (channel("__keyspace@0__:web:"), "channel must begin with a letter or digit"),
        (channel("cache web:"), "channel must begin with a letter or digit"),
        (channel(&long), "channel"),
        (channel(""), "channel must begin with a letter or digit"),
        (
            with(json!({"keyPrefix": "shop:", "invalidation": {"channel": "cache:invalidate:web:"}})),
            "must end with the key prefix",
        ),
        (
            with(json!({"layer": {"dedicated": {"mode": "Sentinel", "purpose": "Sessions"}}})),
            "purpose of a cache is Cache",
        ),
        (with(json!({"layer": {"name": "a", "dedicated": {"mode": "Sentinel"}}})), "either name or dedicated"),
        (with(json!({"access": {"rotation": -1}})), "rotation"),
    ]
}

/// Old and new specification, and words of the reason.
pub fn bad_cache_changes() -> Vec<(Value, Value, &'static str)> {
    // No such layer: nothing is made.
    let plain = json!({"layer": {"name": "nowhere"}, "ttl": "5m"});
    let with = |field: &str, value: Value| {
        let mut spec = plain.clone();
        spec[field] = value;
        spec
    };
    let channel = |channel: &str| with("invalidation", json!({"channel": channel}));
    vec![
        (plain.clone(), with("keyPrefix", json!("other:")), "keyPrefix cannot be changed"),
        (
            plain.clone(),
            with("layer", json!({"name": "shared"})),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
        (plain.clone(), channel("news:web:"), "invalidation.channel cannot be changed"),
        (channel("news:web:"), channel("olds:web:"), "invalidation.channel cannot be changed"),
        (channel("news:web:"), plain.clone(), "invalidation.channel cannot be changed"),
        (with("access", json!({"rotation": 2})), with("access", json!({"rotation": 1})), "only grows"),
    ]
}
