//! The documents: the reference is generated from the definitions, and what the others show is what the code takes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use redoubt::api::custom_resource_definitions;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::api::session_store::{SessionStore, SessionStoreSpec};
use redoubt::model::directives::{self, DirectiveClass};
use redoubt::validate::{DataVolumes, ResolvedDefaults, session_store, validate};
use serde_json::{Value, json};

/// Fields whose inside is Kubernetes' own and described there.
const OF_KUBERNETES: [&str; 5] = ["affinity", "tolerations", "selector", "conditions", "pullSecrets"];

fn reference() -> String {
    let mut text = "# Reference\n\nGenerated from the definitions in `crds/` and the tables of directives; do not edit. Write it anew with \
                    `UPDATE=1 cargo test --test it docs`.\n"
        .to_owned();
    for definition in custom_resource_definitions() {
        let version = &definition.spec.versions[0];
        let names = &definition.spec.names;
        let _ = write!(
            text,
            "\n## {}\n\n`apiVersion: {}/{}`, plural `{}`, short `{}`.\n",
            names.kind,
            definition.spec.group,
            version.name,
            names.plural,
            names.short_names.clone().unwrap_or_default().join("`, `")
        );
        let schema = serde_json::to_value(&version.schema).unwrap();
        for part in ["spec", "status"] {
            section(&mut text, part, &schema["openAPIV3Schema"]["properties"][part]);
        }
        let _ = write!(text, "\n### What admission refuses\n\n");
        let mut messages = Vec::new();
        collect_messages(&schema["openAPIV3Schema"], &mut messages);
        for message in messages {
            let _ = writeln!(text, "- {message}");
        }
    }
    text.push_str(&directive_tables());
    text
}

/// A table of an object's fields, then those of the objects in it.
fn section(text: &mut String, path: &str, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = write!(text, "\n### `{path}`\n\n| field | type | |\n|---|---|---|\n");
    for (name, field) in fields {
        let must = if path == "spec" && required.contains(&name.as_str()) { "**Required.** " } else { "" };
        let description = one_line(field["description"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| `{name}` | {} | {must}{description} |", type_of(field));
    }
    // `dedicated` is the specification of a DataLayer, which has its own chapter.
    let elsewhere = |name: &str| OF_KUBERNETES.contains(&name) || name == "dedicated";
    for (name, field) in fields.iter().filter(|(name, _)| !elsewhere(name)) {
        let is_list = field["type"] == "array";
        let (path, inner) =
            if is_list { (format!("{path}.{name}[]"), &field["items"]) } else { (format!("{path}.{name}"), field) };
        section(text, &path, inner);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn type_of(field: &Value) -> String {
    let words: Vec<String> = field["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == json!(true) {
        return "quantity".to_owned();
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => "map of string".to_owned(),
        Some("integer") => match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("integer, {least} to {most}"),
            _ => "integer".to_owned(),
        },
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = one_line(rule["message"].as_str().expect("every rule has a message"));
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    for (_, field) in schema["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "dedicated") {
        collect_messages(field, messages);
    }
}

fn directive_tables() -> String {
    let mut text = "\n## Directives of `spec.config`\n\nValues are brought into the form in which the server reports them; one that \
                    it would not take is refused. A directive that is in none of these lists is allowed: it is put into \
                    `redis.conf` as it is written, is not compared with the running servers, and rolls the pods when it \
                    changes. The engine may still be one that does not have it.\n"
        .to_owned();
    let of = |wanted: DirectiveClass| {
        let names = directives::known_names().filter(|name| directives::class(name) == wanted);
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let _ = write!(text, "\n**Set live:** {}.\n", of(DirectiveClass::Live));
    let _ = write!(text, "\n**Roll the pods:** {}.\n", of(DirectiveClass::StartOnly));
    let fields: Vec<String> = directives::field_names().map(|(name, field)| format!("`{name}` ({field})")).collect();
    let _ = write!(text, "\n**Refused, because a field sets them:** {}.\n", fields.join(", "));
    let ours: Vec<String> = directives::our_names().map(|name| format!("`{name}`")).collect();
    let (prefixes, suffixes) = directives::our_affixes();
    let affixes: Vec<String> =
        prefixes.map(|prefix| format!("`{prefix}*`")).chain(suffixes.map(|suffix| format!("`*{suffix}`"))).collect();
    let _ = write!(text, "\n**Refused, because Redoubt sets them:** {}, {}.\n", ours.join(", "), affixes.join(", "));
    let renamed: Vec<String> = directives::renamed_names().map(|(old, new)| format!("`{old}` (`{new}`)")).collect();
    let _ = write!(text, "\n**Refused, because the name is old:** {}.\n", renamed.join(", "));
    text
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    let path = Path::new("docs/reference.md");
    let text = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == text,
        "{} differs from the definitions; write it anew with: UPDATE=1 cargo test --test it docs",
        path.display()
    );
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// The blocks of a document that are marked as YAML.
fn yaml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Admission and validation, as for an object of the API server.
fn accept(text: &str, place: &str) {
    let mut value: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"));
    value["metadata"]["namespace"] = json!("shop");
    value["metadata"]["uid"] = json!("5f0e6f7e-1111-4222-8333-944444444444");
    if value["kind"] == "SessionStore" {
        return accept_store(value, place);
    }
    assert_known_fields(&value["spec"], place);
    let layer: DataLayer = serde_json::from_value(value).unwrap_or_else(|error| panic!("{place}: {error}"));
    layer.validate_cel().unwrap_or_else(|errors| panic!("{place}: {errors:?}"));
    let resolved = ResolvedDefaults {
        engine_image: "engine".to_owned(),
        agent_image: "agent".to_owned(),
        volumes: DataVolumes::Undecided,
    };
    validate(&layer, &resolved).unwrap_or_else(|faults| panic!("{place}: {faults:?}"));
}

/// Fields without their texts: a duration is read in one spelling and written in another.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::String(_) => Value::Null,
        other => other.clone(),
    }
}

fn accept_store(value: Value, place: &str) {
    let spec = value["spec"].clone();
    let store: SessionStore = serde_json::from_value(value).unwrap_or_else(|error| panic!("{place}: {error}"));
    let read: SessionStoreSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(shape(&serde_json::to_value(read).unwrap()), shape(&spec), "{place}: a field is unknown");
    store.validate_cel().unwrap_or_else(|errors| panic!("{place}: {errors:?}"));
    session_store::validate(&store, 2).unwrap_or_else(|faults| panic!("{place}: {faults:?}"));
}

/// Reading drops a field that is misspelled; what comes out again must be what went in.
fn assert_known_fields(spec: &Value, place: &str) {
    let parsed: redoubt::api::data_layer::DataLayerSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(
        &serde_json::to_value(parsed).unwrap(),
        spec,
        "{place}: a field is unknown, or not written as it is read"
    );
}

#[test]
fn every_example_is_accepted_and_has_no_unknown_field() {
    let examples = files("examples", "yaml");
    assert!(examples.len() >= 2);
    for path in examples {
        accept(&fs::read_to_string(&path).unwrap(), &path.display().to_string());
    }
}

#[test]
fn every_layer_in_a_document_is_accepted_and_has_no_unknown_field() {
    let mut count = 0;
    for path in files("docs", "md").into_iter().chain(files("docs/uses", "md")).chain(["README.md".into()]) {
        for block in yaml_blocks(&fs::read_to_string(&path).unwrap()) {
            accept(&block, &path.display().to_string());
            count += 1;
        }
    }
    assert!(count > 0, "no document shows a layer");
}

/// The texts between backquotes.
fn code_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_condition_and_reason_of_the_code_is_explained_to_operators() {
    let text = fs::read_to_string("docs/operations.md").unwrap();
    let explained = code_words(&text);
    let source = fs::read_to_string("src/report/conditions.rs").unwrap();
    let code = source.split("#[cfg(test)]").next().unwrap();
    let is_name = |word: &&str| {
        word.len() > 3
            && word.starts_with(|letter: char| letter.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_alphabetic())
            && !["True", "False", "Unknown"].contains(word)
    };
    let names: Vec<&str> = code.split('"').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names.into_iter().chain(["NameTaken", "Invalid", "NotAccepted"]) {
        assert!(explained.contains(&name), "docs/operations.md does not explain `{name}`");
    }
}

#[test]
fn every_annotation_that_a_document_names_is_one_of_ours() {
    let names = fs::read_to_string("src/api/names.rs").unwrap();
    for path in files("docs", "md").into_iter().chain(files("docs/uses", "md")) {
        let text = fs::read_to_string(&path).unwrap();
        for word in code_words(&text).into_iter().filter(|word| word.starts_with("redoubt.dev/") && !word.contains('*'))
        {
            let name = word.split(['=', ':', '-']).next().unwrap();
            let is_ours = names.contains(&format!("\"{}", word.split(['=', ':']).next().unwrap()));
            assert!(is_ours || word == "redoubt.dev/v1alpha1", "{}: {word} ({name})", path.display());
        }
    }
}

#[test]
fn the_status_has_every_part_that_the_documents_promise() {
    let schema = serde_json::to_value(schemars::schema_for!(DataLayerStatus)).unwrap();
    for field in ["conditions", "nodes", "memory", "checklist", "binding", "primary", "version", "observedGeneration"] {
        assert!(schema["properties"][field].is_object(), "{field}");
    }
}

#[test]
fn every_condition_and_reason_of_a_session_store_is_explained() {
    let text = fs::read_to_string("docs/uses/sessions.md").unwrap();
    let explained = code_words(&text);
    let is_name = |word: &&str| {
        word.len() > 3
            && word.starts_with(|letter: char| letter.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_alphabetic())
    };
    let mut count = 0;
    for path in ["src/report/session_store.rs", "src/validate/session_store.rs", "src/controller/session_store.rs"] {
        let source = fs::read_to_string(path).unwrap();
        for name in
            source.split('"').skip(1).step_by(2).filter(is_name).filter(|name| !["True", "SessionStore"].contains(name))
        {
            assert!(explained.contains(&name), "docs/uses/sessions.md does not explain `{name}` of {path}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
