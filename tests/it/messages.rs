//! What people are told of specifications that are wrong: those of `tests/messages`, each with every fault, as a file that is reviewed.
//! Rules of the API server are evaluated here; what its schema alone refuses, types and choices, is told in the words of the parser, and
//! marked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use kube::CustomResourceExt;
use kube::core::cel::ValidationErrors;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::session_store::SessionStore;
use redoubt::validate::uses::validate as validate_use;
use redoubt::validate::{DataVolumes, ResolvedDefaults, admit_as_written, validate};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Words that only the debug output of a type has.
const OF_DEBUG: [&str; 12] = [
    "Some(",
    "None,",
    "Ok(",
    "Err(",
    "Status {",
    "Fault {",
    "Quantity(",
    "Duration {",
    "Error {",
    "ErrorKind",
    " { ",
    "\\\"",
];

fn corpus(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("tests/messages/{name}.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "uid": "5f0e6f7e-1111-4222-8333-944444444444"}, "spec": spec,
    })
}

/// What admission says of an object, and the object if it parses.
fn admitted<K: CustomResourceExt + DeserializeOwned>(kind: &str, spec: &Value) -> (Vec<String>, Option<K>) {
    let object = object(kind, spec);
    let parsed: Result<K, _> = serde_json::from_value(object.clone());
    let error = parsed.as_ref().err().map(ToString::to_string);
    // The API server's schema refuses these before any rule is evaluated.
    let of_schema = ["invalid type", "unknown variant", "missing field"];
    if let Some(error) = error.as_ref().filter(|error| of_schema.iter().any(|words| error.starts_with(words))) {
        return (vec![format!("(schema) {error}")], None);
    }
    let rules = admit_as_written::<K>(&object).err().map(ValidationErrors::into_vec).unwrap_or_default();
    let rules: Vec<String> =
        rules.into_iter().map(|error| format!("(admission) {}: {}", error.field_path, error.message)).collect();
    assert!(error.is_none() || !rules.is_empty(), "{spec} is admitted and cannot be read: {error:?}");
    (rules, parsed.ok())
}

fn of_layer(spec: &Value) -> Vec<String> {
    let (mut told, layer) = admitted::<DataLayer>("DataLayer", spec);
    let Some(layer) = layer else { return told };
    let resolved = ResolvedDefaults {
        engine_image: "example.test/engine:1".to_owned(),
        agent_image: "example.test/redoubt:1".to_owned(),
        volumes: DataVolumes::Undecided,
        shares: None,
        allowed_images: Vec::new(),
        service_domain: "svc.cluster.local".to_owned(),
    };
    let faults = validate(&layer, &resolved).err().unwrap_or_default();
    told.extend(faults.iter().map(|fault| format!("(status) {fault}")));
    told
}

fn of_store(spec: &Value) -> Vec<String> {
    let (mut told, store) = admitted::<SessionStore>("SessionStore", spec);
    let Some(store) = store else { return told };
    let faults = validate_use(&store.into(), 2).err().unwrap_or_default();
    told.extend(faults.iter().map(|fault| format!("(status) {fault}")));
    told
}

#[test]
fn the_committed_messages_are_those_that_are_reported() {
    let mut text = String::new();
    let mut debug = BTreeSet::new();
    for (name, told) in [("layers", of_layer as fn(&Value) -> Vec<String>), ("stores", of_store)] {
        for mut spec in corpus(name) {
            let _ = writeln!(text, "{name}: {spec}");
            if name == "layers" && spec.get("mode").is_none() {
                spec["mode"] = json!("Sentinel");
            }
            let mut messages = told(&spec);
            // Rules come in the order of a hash map.
            messages.sort();
            if messages.is_empty() {
                let _ = writeln!(text, "  accepted");
            }
            for message in messages {
                let _ = writeln!(text, "  {message}");
                debug.extend(
                    OF_DEBUG.iter().filter(|word| message.contains(**word)).map(|word| format!("{word} in {message}")),
                );
            }
        }
    }
    assert!(debug.is_empty(), "debug output of types: {debug:#?}");
    let path = "tests/golden/messages.txt";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap_or_default(),
        text,
        "write it anew with: UPDATE=1 cargo test --test it committed"
    );
}
