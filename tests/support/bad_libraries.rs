//! Function libraries that are wrong by themselves: admission and validation refuse each.

use serde_json::{Value, json};

/// Names, specifications, and words of the reason that admission gives.
pub fn bad_libraries() -> Vec<(String, Value, &'static str)> {
    let layer = json!({"name": "nowhere"});
    let inline = json!({"inline": "#!lua name=tools\n"});
    let with = |source: Value| json!({"layer": layer, "source": source});
    let mut bad: Vec<(String, Value, &'static str)> = vec![
        (json!({"source": inline}), "layer"),
        (json!({"layer": {}, "source": inline}), "layer.name"),
        (json!({"layer": {"dedicated": {"mode": "Sentinel"}}, "source": inline}), "layer.name"),
        (json!({"layer": layer}), "source"),
        (with(json!({})), "source needs either inline or configMap"),
        (
            with(json!({"inline": "#!lua name=a\n", "configMap": {"name": "a"}})),
            "source needs either inline or configMap",
        ),
        (with(json!({"inline": ""})), "#!lua name="),
        (with(json!({"inline": "return 1"})), "#!lua name="),
        (with(json!({"inline": "#!js name=a\n"})), "#!lua name="),
        (with(json!({"inline": format!("#!lua name=a\n{}", "-".repeat(262_144))})), "262144"),
        (with(json!({"configMap": {}})), "name"),
        (with(json!({"configMap": {"name": ""}})), "name"),
        (with(json!({"configMap": {"name": "a", "key": ""}})), "key"),
        (with(json!({"configMap": {"name": "../../platform/configmaps/lib"}})), "is not the name of a ConfigMap"),
        (with(json!({"configMap": {"name": "?labelSelector=x"}})), "is not the name of a ConfigMap"),
        (with(json!({"configMap": {"name": "a#b"}})), "is not the name of a ConfigMap"),
        (with(json!({"configMap": {"name": "a", "key": "a/b"}})), "source.configMap.key must hold"),
        (json!({"layer": {"name": "Web"}, "source": inline}), "layer.name must begin with a letter"),
        (json!({"layer": {"name": "web", "namespace": "a.b"}, "source": inline}), "layer.namespace must hold"),
    ]
    .into_iter()
    .map(|(spec, reason)| ("tools".to_owned(), spec, reason))
    .collect();
    let long = "a".repeat(32);
    for name in ["1a", "a.b", long.as_str()] {
        bad.push((name.to_owned(), with(inline.clone()), "metadata.name must begin with a letter"));
    }
    bad
}

/// Old and new specification, and words of the reason.
pub fn bad_library_changes() -> Vec<(Value, Value, &'static str)> {
    let source = json!({"inline": "#!lua name=tools\n"});
    let at = |layer: Value| json!({"layer": layer, "source": source});
    vec![
        (
            at(json!({"name": "nowhere"})),
            at(json!({"name": "other"})),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
        (
            at(json!({"name": "nowhere", "namespace": "default"})),
            at(json!({"name": "nowhere", "namespace": "other"})),
            "layer.name and layer.namespace cannot be changed: what the old layer holds",
        ),
    ]
}
