//! The custom resource definitions: committed as generated, small enough, and with rules that say no.

use std::fs;
use std::path::Path;

use redoubt::api::custom_resource_definitions;
use redoubt::api::data_layer::DataLayer;
use serde_json::{Value, json};

use crate::support::bad_layers::bad_layers;

/// `kubectl apply` keeps the whole object in an annotation of at most this many bytes.
const LARGEST: usize = 262_144;

#[test]
fn the_committed_definitions_are_the_generated_ones() {
    for definition in custom_resource_definitions() {
        let path = Path::new("crds").join(format!("{}.yaml", definition.metadata.name.clone().unwrap()));
        let text = serde_saphyr::to_string(&definition).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert!(text.len() < LARGEST / 2, "{} has {} bytes", path.display(), text.len());
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            text,
            "{} differs from the types; write it anew with: UPDATE=1 cargo test --test it definitions",
            path.display()
        );
    }
}

#[test]
fn every_field_is_described() {
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
        for (name, field) in spec["properties"].as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|text| text.ends_with('.')), "spec.{name}: {field}");
        }
    }
}

fn layer(name: &str, spec: &Value) -> Result<(), String> {
    let object = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": name}, "spec": spec,
    });
    let layer: DataLayer = serde_json::from_value(object).map_err(|error| error.to_string())?;
    layer.validate_cel().map_err(|errors| format!("{errors:?}"))
}

fn change(old: &Value, new: &Value) -> Result<(), String> {
    let parse = |spec: &Value| -> DataLayer {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap()
    };
    parse(new).validate_cel_update(&parse(old)).map_err(|errors| format!("{errors:?}"))
}

#[test]
fn good_layers_are_accepted() {
    for spec in [
        json!({"mode": "Sentinel"}),
        json!({"mode": "Standalone", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}}),
        json!({"mode": "Sentinel", "replicas": 1, "durability": {"minReplicasToWrite": 0}}),
        json!({"mode": "Sentinel", "failover": {"sentinels": 5, "quorum": 3, "detection": "2s"}}),
        json!({"mode": "Sentinel", "config": {"hash-max-listpack-entries": "64"}, "paused": true}),
    ] {
        assert_eq!(layer("web", &spec), Ok(()), "{spec}");
    }
}

#[test]
fn bad_layers_are_refused_with_the_reason() {
    for (name, spec, reason) in bad_layers() {
        let refused = layer(&name, &spec).expect_err(&format!("accepted: {spec}"));
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
}

#[test]
fn what_cannot_change_is_refused() {
    let class = |name: &str| json!({"mode": "Sentinel", "persistence": {"volume": {"storageClassName": name}}});
    for (old, new, reason) in [
        (json!({"mode": "Sentinel"}), json!({"mode": "Standalone"}), "mode cannot be changed"),
        (class("fast"), class("slow"), "storageClassName cannot be changed"),
        (class("fast"), json!({"mode": "Sentinel"}), "storageClassName cannot be changed"),
    ] {
        let refused = change(&old, &new).expect_err(&format!("accepted: {old} to {new}"));
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn the_examples_are_accepted() {
    let mut count = 0;
    for entry in fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let example: DataLayer = serde_saphyr::from_str(&text).unwrap();
        assert!(example.validate_cel().is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 0);
}
