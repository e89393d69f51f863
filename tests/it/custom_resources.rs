//! The custom resource definitions: committed as generated, small enough, and with rules that say no.

use std::fs;
use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::core::cel::ValidationErrors;
use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::custom_resource_definitions;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::function_library::FunctionLibrary;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use redoubt::api::session_store::SessionStore;
use redoubt::model::directives::{self, DirectiveClass};
use redoubt::validate::{admit, admit_edit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::bad_layers::{bad_changes, bad_layers};
use crate::support::bad_stores::{bad_store_changes, bad_stores};

/// `kubectl apply` keeps the whole object in an annotation of at most this many bytes.
const LARGEST: usize = 262_144;

/// Where the chart has the same definitions, with what Helm must know of them.
const OF_THE_CHART: &str = "charts/redoubt-crds/templates";

/// A definition as the chart has it: Helm keeps it when the chart is uninstalled, or every layer would be deleted with it.
fn of_the_chart(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    definition.metadata.annotations = Some([("helm.sh/resource-policy", "keep")].map(text).into());
    definition.metadata.labels = Some([("app.kubernetes.io/part-of", "redoubt")].map(text).into());
    definition
}

#[test]
fn the_committed_definitions_are_the_generated_ones() {
    for definition in custom_resource_definitions() {
        let name = format!("{}.yaml", definition.metadata.name.clone().unwrap());
        let plain = serde_saphyr::to_string(&definition).unwrap();
        let chart = serde_saphyr::to_string(&of_the_chart(definition)).unwrap();
        assert!(!chart.contains("{{"), "{name} would be read as a template");
        for (path, text) in [(Path::new("crds").join(&name), plain), (Path::new(OF_THE_CHART).join(&name), chart)] {
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &text).unwrap();
            }
            assert!(text.len() < LARGEST / 3 * 2, "{} has {} bytes", path.display(), text.len());
            assert_eq!(
                fs::read_to_string(&path).unwrap_or_default(),
                text,
                "{} differs from the types; write it anew with: UPDATE=1 cargo test --test it definitions",
                path.display()
            );
        }
    }
}

#[test]
fn no_definition_is_left_of_a_kind_that_is_gone() {
    let mut known: Vec<String> = custom_resource_definitions()
        .iter()
        .map(|one| format!("{}.yaml", one.metadata.name.clone().unwrap()))
        .collect();
    known.sort();
    for folder in ["crds", OF_THE_CHART] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found: Vec<String> = files.filter(|file| file != "NOTES.txt").collect();
        found.sort();
        assert_eq!(found, known, "{folder}");
    }
}

#[test]
fn every_field_is_described_with_its_default() {
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let mut count = 0;
        assert_described("spec", &schema["openAPIV3Schema"]["properties"]["spec"], &mut count);
        // A function library has the fewest.
        assert!(count > 5, "{count} fields");
    }
}

/// Fields without a default: required, or nothing where nothing is given.
const WITHOUT_DEFAULT: [&str; 16] = [
    "ttl",
    "inline",
    "name",
    "idleTimeout",
    "mode",
    "shards",
    "config",
    "limits",
    "program",
    "pullSecrets",
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "labels",
    "annotations",
];
/// Kubernetes' own types: described by Kubernetes.
const OF_KUBERNETES: [&str; 4] = ["affinity", "tolerations", "selector", "pullSecrets"];

/// A few words can only repeat the name of the field.
#[test]
fn every_description_of_a_field_says_more_than_its_name() {
    fn assert_says_more(path: &str, schema: &Value) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = field["description"].as_str().unwrap_or_default();
            assert!(text.split_whitespace().count() > 3, "{path}: {text:?}");
            if !OF_KUBERNETES.contains(&name.as_str()) {
                assert_says_more(&path, field);
                assert_says_more(&path, &field["items"]);
            }
        }
    }
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        assert_says_more(&definition.spec.names.kind, &schema["openAPIV3Schema"]);
    }
}

fn assert_described(path: &str, schema: &Value, count: &mut usize) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let text = field["description"].as_str().unwrap_or_default();
        assert!(text.ends_with('.'), "{path}: {text:?} is no sentence");
        *count += 1;
        if OF_KUBERNETES.contains(&name.as_str()) {
            continue;
        }
        if field["properties"].is_object() {
            assert_described(&path, field, count);
        } else {
            let is_given = text.contains("Default") || text.contains("not implemented in this version");
            assert!(is_given || WITHOUT_DEFAULT.contains(&name.as_str()), "{path}: {text:?} names no default");
        }
    }
}

fn layer(name: &str, spec: &Value) -> Result<(), String> {
    let object = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": name}, "spec": spec,
    });
    let layer: DataLayer = serde_json::from_value(object).map_err(|error| error.to_string())?;
    admit(&layer).map_err(|errors| format!("{errors:?}"))
}

fn change(old: &Value, new: &Value) -> Result<(), String> {
    let parse = |spec: &Value| -> DataLayer {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap()
    };
    admit_edit(&parse(old), &parse(new)).map_err(|errors| format!("{errors:?}"))
}

#[test]
fn good_layers_are_accepted() {
    for spec in [
        json!({"mode": "Sentinel"}),
        json!({"mode": "Cluster"}),
        json!({"mode": "Cluster", "shards": 5, "replicas": 0, "failover": {"detection": "2s"}}),
        json!({"mode": "Standalone", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}}),
        json!({"mode": "Sentinel", "replicas": 1, "durability": {"minReplicasToWrite": 0}}),
        json!({"mode": "Sentinel", "failover": {"sentinels": 5, "quorum": 3, "detection": "2s"}}),
        json!({"mode": "Sentinel", "config": {"hash-max-listpack-entries": "64"}, "paused": true}),
        json!({"mode": "Standalone", "replicas": 0, "durability": {"minReplicasToWrite": 0}}),
        json!({"mode": "Sentinel", "config": {"client-output-buffer-limit": "pubsub 64mb 16mb 90", "notify-keyspace-events": ""}}),
        json!({"mode": "Sentinel", "config": {"search-timeout": "100", "io-threads": "2"}}),
        json!({"mode": "Sentinel", "cpu": "1500m", "memory": {"limit": "1Gi"}, "persistence": {"volume": {"size": "1Gi", "storageClassName": "fast.example.com"}}}),
        json!({"mode": "Sentinel", "memory": {"limit": "4Gi"}, "persistence": {"appendOnly": false, "volume": {"size": "1Gi"}}}),
        json!({"mode": "Sentinel", "access": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}}}),
        json!({"mode": "Sentinel", "scheduling": {"nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "tolerations": [{"operator": "Exists"}, {"key": "data", "value": "a", "effect": "NoSchedule"}]}}),
        json!({"mode": "Sentinel", "engine": {"image": "valkey"}}),
        json!({"mode": "Sentinel", "engine": {"image": "registry.Example.com:5000/team/redis_x:8.0-a"}}),
        json!({"mode": "Sentinel", "engine": {"image": format!("docker.io/valkey/valkey:8.1@sha256:{}", "0a".repeat(32))}}),
        json!({"mode": "Sentinel", "podMetadata": {"labels": {"team": "a", "example.com/b": ""}, "annotations": {"example.com/c": "any text\n"}}}),
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
    for (old, new, reason) in bad_changes() {
        let refused = change(&old, &new).expect_err(&format!("accepted: {old} to {new}"));
        assert!(refused.contains(reason), "{old} to {new}: {refused}");
    }
}

#[test]
fn what_may_change_is_accepted() {
    let plain = json!({"mode": "Sentinel"});
    for (old, new) in [
        (plain.clone(), json!({"mode": "Sentinel", "replicas": 3, "memory": {"limit": "1Gi"}})),
        (
            plain,
            json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1Gi"}}, "access": {"announce": "Address"}}),
        ),
        (
            json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1Gi"}}}),
            json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1024Mi"}}}),
        ),
        // A size that a running layer does not have is refused by its status: it can be taken back.
        (json!({"mode": "Sentinel", "persistence": {"volume": {"size": "5Gi"}}}), json!({"mode": "Sentinel"})),
        // What an earlier version let in can be corrected.
        (
            json!({"mode": "Sentinel", "persistence": {"volume": {"size": "10GB"}}, "memory": {"limit": "1GB"}, "cpu": "x"}),
            json!({"mode": "Sentinel", "persistence": {"volume": {"size": "10Gi"}}, "memory": {"limit": "1Gi"}, "cpu": 2}),
        ),
        (
            json!({"mode": "Sentinel", "persistence": {"volume": {"storageClassName": "a..b"}}}),
            json!({"mode": "Sentinel", "persistence": {"volume": {"storageClassName": "a.b"}}}),
        ),
        (
            json!({"mode": "Sentinel", "persistence": {"volume": {"storageClassName": "a-.b"}}}),
            json!({"mode": "Sentinel"}),
        ),
        (
            json!({"mode": "Sentinel", "engine": {"image": "redis:8.0"}}),
            json!({"mode": "Sentinel", "engine": {"image": "redis:7.0"}}),
        ),
    ] {
        assert_eq!(change(&old, &new), Ok(()), "{old} to {new}");
    }
}

/// Objects that were admitted before a rule was written.
#[test]
fn what_compares_fields_and_was_admitted_can_be_edited() {
    let small = json!({"mode": "Sentinel", "memory": {"limit": "4Gi"}, "persistence": {"volume": {"size": "1Gi"}}});
    let mut paused = small.clone();
    paused["paused"] = json!(true);
    assert_eq!(change(&small, &paused), Ok(()));
    let mut sound = small.clone();
    sound["memory"]["limit"] = json!("1Gi");
    assert_eq!(change(&small, &sound), Ok(()));
    assert_eq!(change(&sound, &small), Ok(()), "validation says that it outgrows the volume");
    let parse = |spec: Value| parse_store("web", &spec).unwrap();
    let unconfirmed = parse(json!({"idleTimeout": "30m", "revokeReplicas": 5}));
    let edited = parse(json!({"idleTimeout": "10m", "revokeReplicas": 5}));
    assert!(admit_edit(&unconfirmed, &edited).is_ok());
    let refused = admit_edit(&parse(json!({"idleTimeout": "30m"})), &edited).unwrap_err();
    assert!(format!("{refused:?}").contains("revokeReplicas is above the replicas"));
}

#[test]
fn every_directive_that_is_refused_by_class_is_refused_by_admission() {
    let fields = directives::field_names().map(|(name, _)| name);
    let renamed = directives::renamed_names().map(|(name, _)| name);
    let (prefixes, suffixes) = directives::our_affixes();
    let affixed = prefixes.map(|prefix| format!("{prefix}x")).chain(suffixes.map(|suffix| format!("x{suffix}")));
    let named = directives::our_names().chain(fields).chain(renamed).map(str::to_owned);
    for name in named.chain(affixed) {
        let config = json!({"mode": "Sentinel", "config": {name.as_str(): "1"}});
        assert!(layer("web", &config).is_err(), "{name}");
    }
    for name in directives::known_names() {
        let is_allowed = matches!(directives::class(name), DirectiveClass::Live | DirectiveClass::StartOnly);
        let accepted = layer("web", &json!({"mode": "Sentinel", "config": {name: "1"}}));
        assert_eq!(accepted.is_ok(), is_allowed, "{name}: {accepted:?}");
    }
}

/// What the API server takes as a rule's message.
const LONGEST_MESSAGE: usize = 2048;

/// The API server sums up the worst case of every rule; without bounds it refuses the whole definition.
#[test]
fn everything_that_a_rule_walks_over_is_bounded() {
    for definition in custom_resource_definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let mut rules = 0;
        assert_bounded("", &schema["openAPIV3Schema"], &mut rules);
        // A function library has the fewest.
        assert!(rules > 3, "{rules} rules");
    }
}

fn assert_bounded(path: &str, schema: &Value, rules: &mut usize) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        *rules += 1;
        match (rule["message"].as_str(), rule["messageExpression"].as_str()) {
            (Some(message), None) => {
                assert!(message.len() <= LONGEST_MESSAGE && !message.contains('\n'), "{path}: {message}");
            }
            (None, Some(expression)) => assert!(!expression.contains('\n'), "{path}: {expression}"),
            other => panic!("{path}: every rule says what is wrong, once: {other:?}"),
        }
        let text = rule["rule"].as_str().unwrap();
        let is_loop = text.contains("self.all(");
        assert!(!is_loop || schema["maxProperties"].is_u64() || schema["maxItems"].is_u64(), "{path}: {text}");
        if is_loop && text.contains("self[") {
            assert!(schema["additionalProperties"]["maxLength"].is_u64(), "{path}: {text}");
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert_bounded(&format!("{path}.{name}"), field, rules);
    }
}

fn parse_store(name: &str, spec: &Value) -> Result<SessionStore, String> {
    serde_json::from_value(json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore",
        "metadata": {"name": name, "namespace": "shop", "uid": "uid-1"}, "spec": spec,
    }))
    .map_err(|error| error.to_string())
}

fn store(name: &str, spec: &Value) -> Result<(), String> {
    admit(&parse_store(name, spec)?).map_err(|errors| format!("{errors:?}"))
}

#[test]
fn good_stores_are_accepted() {
    for spec in [
        json!({"idleTimeout": "30m"}),
        json!({"idleTimeout": "30m", "absoluteLifetime": "30m", "touchInterval": "30m", "maxPerUser": 5, "onExceed": "Reject"}),
        json!({"idleTimeout": "1h30m", "touchInterval": "0s", "keyPrefix": "team-a.web_1:sessions:", "revokeReplicas": 2}),
        json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": "data"}, "access": {"rotation": 3, "rotationGrace": "10m"}}),
        json!({"idleTimeout": "1500h", "layer": {"dedicated": {"mode": "Sentinel", "replicas": 1, "memory": {"limit": "1Gi"}}}}),
    ] {
        assert_eq!(store("web", &spec), Ok(()), "{spec}");
        assert!(redoubt::validate::uses::validate(&parse_store("web", &spec).unwrap().into(), 2).is_ok(), "{spec}");
    }
}

#[test]
fn bad_stores_are_refused_with_the_reason_by_admission_and_by_validation() {
    for (name, spec, reason) in bad_stores() {
        let refused = store(&name, &spec).expect_err(&format!("accepted: {spec}"));
        assert!(refused.contains(reason), "{spec}: {refused}");
        let faults = redoubt::validate::uses::validate(&parse_store(&name, &spec).unwrap().into(), 2);
        assert!(faults.is_err(), "accepted by validation: {spec}");
    }
}

/// What admission says of an edit.
fn told_of_edit<K: CustomResourceExt + Serialize + DeserializeOwned>(
    fields: &Value,
    layers: [&Value; 2],
) -> Vec<String> {
    let [old, new] = layers.map(|layer| {
        let mut spec = fields.clone();
        spec["layer"] = layer.clone();
        let (group, kind) = ("redoubt.dev/v1alpha1", K::crd().spec.names.kind);
        serde_json::from_value::<K>(
            json!({"apiVersion": group, "kind": kind, "metadata": {"name": "web"}, "spec": spec}),
        )
        .unwrap()
    });
    let errors = admit_edit(&old, &new).err().map(ValidationErrors::into_vec).unwrap_or_default();
    errors.into_iter().map(|error| error.message).collect()
}

#[test]
fn another_layer_is_refused_once_and_in_the_same_words_of_every_kind() {
    let (shared, other) = (json!({"name": "shared"}), json!({"name": "other"}));
    let away = json!({"name": "shared", "namespace": "data"});
    let own = json!({"dedicated": {"mode": "Sentinel"}});
    let named = [[&shared, &other], [&shared, &away], [&away, &other]];
    let to_or_from_its_own = [[&shared, &own], [&own, &shared], [&shared, &Value::Null], [&Value::Null, &shared]];
    let words =
        "layer.name and layer.namespace cannot be changed: what the old layer holds would be lost; make a new object";
    for layers in named.into_iter().chain(to_or_from_its_own) {
        let limits = json!({"limits": [{"name": "a", "quota": 1, "window": "1s"}]});
        let mut told = vec![
            told_of_edit::<SessionStore>(&json!({"idleTimeout": "30m"}), layers),
            told_of_edit::<CacheNamespace>(&json!({"ttl": "5m"}), layers),
            told_of_edit::<RateLimitPolicy>(&limits, layers),
        ];
        if layers.iter().all(|layer| layer["name"].is_string()) {
            let source = json!({"source": {"inline": "#!lua name=tools\n"}});
            told.push(told_of_edit::<FunctionLibrary>(&source, layers));
        }
        assert!(told.iter().all(|messages| messages == &[words]), "{layers:?}: {told:#?}");
    }
}

/// The fields of a dedicated layer are judged as a layer's are.
#[test]
fn a_dedicated_layer_is_refused_for_what_a_layer_is() {
    let store_of = |spec: &Value| json!({"idleTimeout": "30m", "layer": {"dedicated": spec}});
    for (_, spec, reason) in bad_layers().into_iter().filter(|(name, _, _)| name == "web") {
        let refused = store("web", &store_of(&spec)).expect_err(&format!("accepted: {spec}"));
        // The purpose of a dedicated layer is the store's.
        assert!(refused.contains(reason) || spec.get("purpose").is_some(), "{spec}: {refused}");
    }
    for (old, new, reason) in bad_changes() {
        let parse = |spec: &Value| parse_store("web", &store_of(spec)).unwrap();
        let refused = admit_edit(&parse(&old), &parse(&new)).expect_err(&format!("accepted: {old} to {new}"));
        assert!(format!("{refused:?}").contains(reason), "{old} to {new}: {refused:?}");
    }
    let without = parse_store("web", &json!({"idleTimeout": "30m"})).unwrap();
    let change = |spec: Value| admit_edit(&parse_store("web", &store_of(&spec)).unwrap(), &without);
    assert!(change(json!({"mode": "Sentinel", "replicas": 3})).is_ok());
    for kept in [
        json!({"mode": "Standalone"}),
        json!({"mode": "Sentinel", "engine": {"image": "redis:8.0"}}),
        json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1Gi"}}}),
    ] {
        assert!(format!("{:?}", change(kept)).contains("layer.dedicated cannot be removed"));
    }
}

#[test]
fn what_cannot_change_of_a_store_is_refused() {
    for (old, new, reason) in bad_store_changes() {
        let parse = |spec: &Value| parse_store("web", spec).unwrap();
        let refused = admit_edit(&parse(&old), &parse(&new)).expect_err(&format!("accepted: {old} to {new}"));
        assert!(format!("{refused:?}").contains(reason), "{old} to {new}: {refused:?}");
    }
    let (old, new) =
        (json!({"idleTimeout": "30m"}), json!({"idleTimeout": "10m", "maxPerUser": 3, "access": {"rotation": 1}}));
    assert!(admit_edit(&parse_store("web", &old).unwrap(), &parse_store("web", &new).unwrap()).is_ok());
}
