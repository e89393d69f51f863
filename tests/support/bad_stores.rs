//! Session stores that are wrong by themselves: admission and validation refuse each, for the same reason.

use serde_json::{Value, json};

/// Name, specification, and words of the reason.
pub fn bad_stores() -> Vec<(String, Value, &'static str)> {
    let long = "a".repeat(32);
    let mut stores: Vec<(String, Value, &'static str)> = vec![
        (long, json!({"idleTimeout": "30m"}), "31 characters"),
        ("1web".to_owned(), json!({"idleTimeout": "30m"}), "letter"),
    ];
    let specifications = [
        (json!({"idleTimeout": "30m", "absoluteLifetime": "29m"}), "absoluteLifetime"),
        (json!({"idleTimeout": "30m", "touchInterval": "31m"}), "idleTimeout"),
        (json!({"idleTimeout": "0s"}), "1s"),
        (json!({"idleTimeout": "-5m"}), "1s"),
        (json!({"idleTimeout": "9000h"}), "8784h"),
        (json!({"idleTimeout": "30m", "touchInterval": "-1s"}), "0"),
        (json!({"idleTimeout": "30m", "onExceed": "Reject"}), "maxPerUser"),
        (json!({"idleTimeout": "30m", "layer": {}}), "either name or dedicated"),
        (
            json!({"idleTimeout": "30m", "layer": {"name": "a", "dedicated": {"mode": "Sentinel"}}}),
            "either name or dedicated",
        ),
        (json!({"idleTimeout": "30m", "access": {"rotationGrace": "200h"}}), "168h"),
        (
            json!({"idleTimeout": "30m", "layer": {"namespace": "data", "dedicated": {"mode": "Sentinel"}}}),
            "layer.namespace belongs to layer.name",
        ),
        (json!({"idleTimeout": "30m", "revokeReplicas": 5}), "revokeReplicas"),
        (
            json!({"idleTimeout": "30m", "revokeReplicas": 1, "layer": {"dedicated": {"mode": "Standalone"}}}),
            "above the replicas of the dedicated layer",
        ),
        (
            json!({"idleTimeout": "30m", "revokeReplicas": 2, "layer": {"dedicated": {"mode": "Sentinel", "replicas": 1}}}),
            "above the replicas of the dedicated layer",
        ),
    ];
    stores.extend(specifications.map(|(spec, reason)| ("web".to_owned(), spec, reason)));
    for prefix in [
        "web", ":", "", "we b:", "web\n:", "we'b:", "we\"b:", "we{b}:", "we*b:", "we?b:", "we[b]:", "we\\b:", "-web:",
        "wéb:",
    ] {
        stores.push(("web".to_owned(), json!({"idleTimeout": "30m", "keyPrefix": prefix}), "keyPrefix"));
    }
    stores.push((
        "web".to_owned(),
        json!({"idleTimeout": "30m", "keyPrefix": format!("{}:", "a".repeat(64))}),
        "keyPrefix",
    ));
    stores
}

/// Old and new specification, and words of the reason.
pub fn bad_store_changes() -> Vec<(Value, Value, &'static str)> {
    let plain = json!({"idleTimeout": "30m"});
    vec![
        (plain.clone(), json!({"idleTimeout": "30m", "keyPrefix": "other:"}), "keyPrefix cannot be changed"),
        (
            plain.clone(),
            json!({"idleTimeout": "30m", "layer": {"name": "shared"}}),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
        (
            json!({"idleTimeout": "30m", "layer": {"name": "shared"}}),
            json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": "other"}}),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
        (
            json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Sentinel"}}}),
            json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone"}}}),
            "mode cannot be changed",
        ),
        (
            json!({"idleTimeout": "30m", "access": {"rotation": 2}}),
            json!({"idleTimeout": "30m", "access": {"rotation": 1}}),
            "only grows",
        ),
        (json!({"idleTimeout": "30m", "access": {"rotation": 2}}), plain, "only grows"),
    ]
}
