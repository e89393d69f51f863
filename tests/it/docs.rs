//! The documents: the reference is generated from the definitions, and what the others show is what the code takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use redoubt::api::custom_resource_definitions;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::api::session_store::{SessionStore, SessionStoreSpec};
use redoubt::dataplane::sessions;
use redoubt::model::directives::{self, DirectiveClass};
use redoubt::validate::{DataVolumes, ResolvedDefaults, session_store, validate};
use serde_json::{Value, json};

/// Fields whose inside is Kubernetes' own and described there.
const OF_KUBERNETES: [&str; 5] = ["affinity", "tolerations", "selector", "conditions", "pullSecrets"];

/// Folder of the generated pages.
const REFERENCE: &str = "docs/reference";
const GENERATED: &str = "Generated; do not edit. Write it anew with `UPDATE=1 cargo test --test it docs`.\n";

/// The generated pages by file name.
fn reference() -> BTreeMap<String, String> {
    let mut pages =
        BTreeMap::from([("directives.md".to_owned(), directive_tables()), ("functions.md".to_owned(), functions())]);
    let mut index = format!("# Reference\n\n{GENERATED}\n| page | made of |\n|---|---|\n");
    for definition in custom_resource_definitions() {
        let kind = &definition.spec.names.kind;
        let name = format!("{}.md", words_of(kind).join("-"));
        let _ = writeln!(index, "| [{kind}]({name}) | the definition of the custom resource, in `crds/` |");
        pages.insert(name, resource(&definition));
    }
    index.push_str("| [Session functions](functions.md) | the headers of the Lua library that every data node has |\n");
    index.push_str("| [Directives](directives.md) | the tables of directives in `src/model/directives.rs` |\n");
    pages.insert("README.md".to_owned(), index);
    pages
}

/// `DataLayer`: `data`, `layer`.
fn words_of(kind: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in kind.chars() {
        match words.last_mut() {
            Some(word) if letter.is_lowercase() => word.push(letter),
            _ => words.push(letter.to_lowercase().to_string()),
        }
    }
    words
}

fn resource(definition: &CustomResourceDefinition) -> String {
    let version = &definition.spec.versions[0];
    let names = &definition.spec.names;
    let mut text = format!(
        "# {}\n\n{GENERATED}\n`apiVersion: {}/{}`, plural `{}`, short `{}`.\n",
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
    let _ = write!(text, "\n## What admission refuses\n\n");
    let mut messages = Vec::new();
    collect_messages(&schema["openAPIV3Schema"], &mut messages);
    for message in messages {
        let _ = writeln!(text, "- {message}");
    }
    text
}

/// The headers of the Lua source: what holds for all functions, then each of them.
fn functions() -> String {
    let mut text = format!(
        "# Session functions\n\n{GENERATED}\nCalled with any client: `FCALL redoubt_session_get 1 'web:{{t7}}s:4fzk…'`. What they are for: \
         [sessions](../uses/sessions.md).\n\n## What holds for all\n\n"
    );
    let comment = |line: &'static str| line.strip_prefix("--").map(|words| words.strip_prefix(' ').unwrap_or(words));
    let head = sessions::TEMPLATE.lines().skip_while(|line| !line.starts_with("--")).map_while(comment).skip(2);
    for line in head {
        let _ = writeln!(text, "{line}");
    }
    let mut shows = false;
    for line in sessions::TEMPLATE.lines().filter_map(comment).map(str::trim_end) {
        let is_name = line.starts_with("redoubt_session") && !line.contains([' ', ':']);
        if shows && !is_name && !line.starts_with("  ") {
            text.push_str("```\n");
        }
        if is_name && shows {
            text.push_str("```\n");
        }
        if is_name {
            let _ = write!(text, "\n## {line}\n\n```text\n");
        }
        shows = is_name || (shows && line.starts_with("  "));
        if shows && !is_name {
            let _ = writeln!(text, "{}", &line[2..]);
        }
    }
    if shows {
        text.push_str("```\n");
    }
    text
}

/// A table of an object's fields, then those of the objects in it.
fn section(text: &mut String, path: &str, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = write!(text, "\n## `{path}`\n\n| field | type | |\n|---|---|---|\n");
    for (name, field) in fields {
        let must = if path == "spec" && required.contains(&name.as_str()) { "**Required.** " } else { "" };
        let description = one_line(field["description"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| `{name}` | {} | {must}{description} |", type_of(field));
    }
    // `dedicated` is the specification of a DataLayer, which has its own page.
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
    let mut text = format!(
        "# Directives of `spec.config`\n\n{GENERATED}\nValues are brought into the form in which the server reports them; one that \
         it would not take is refused. A directive that is in none of these lists is allowed: it is put into `redis.conf` as \
         it is written, is not compared with the running servers, and rolls the pods when it changes. The engine may still \
         be one that does not have it.\n"
    );
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
    let pages = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(REFERENCE).unwrap();
        for path in files(REFERENCE, "md") {
            fs::remove_file(path).unwrap();
        }
        for (name, text) in &pages {
            fs::write(Path::new(REFERENCE).join(name), text).unwrap();
        }
    }
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let committed: BTreeMap<String, String> =
        files(REFERENCE, "md").iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    let differing: Vec<&String> =
        pages.keys().chain(committed.keys()).filter(|name| pages.get(*name) != committed.get(*name)).collect();
    assert!(
        differing.is_empty(),
        "{REFERENCE} {differing:?}: write them anew with: UPDATE=1 cargo test --test it docs"
    );
}

#[test]
fn the_reference_has_every_function_that_is_registered() {
    let page = functions();
    let names = sessions::TEMPLATE.lines().filter_map(|line| line.strip_prefix("register('")?.split('\'').next());
    let missing: Vec<&str> = names.filter(|name| !page.contains(&format!("\n## {name}\n"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let shown = page.lines().filter(|line| line.starts_with("## redoubt_")).count();
    assert_eq!(shown, sessions::TEMPLATE.lines().filter(|line| line.starts_with("register('")).count());
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

/// The client in each language, by the word that marks its blocks.
const CLIENTS: [(&str, &str); 4] = [
    ("python", "examples/clients/python/login.py"),
    ("js", "examples/clients/node/login.mjs"),
    ("go", "examples/clients/go/main.go"),
    ("rust", "examples/clients/rust/login.rs"),
];

/// The clients are run by `stock_clients`; what the front page shows of them must be the very lines.
#[test]
fn the_front_page_shows_each_client_as_it_is_run() {
    let page = fs::read_to_string("README.md").unwrap();
    for (language, path) in CLIENTS {
        let client = fs::read_to_string(path).unwrap();
        let bare = |text: &str| text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
        let blocks: Vec<&str> = page.split(&format!("```{language}\n")).skip(1).collect();
        assert_eq!(blocks.len(), 1, "{language}");
        let shown = bare(blocks[0].split("```").next().unwrap());
        assert!(
            shown.lines().count() >= 10 && bare(&client).contains(&shown),
            "README.md does not show lines of {path}"
        );
    }
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let pages =
        [files("docs", "md"), files("docs/uses", "md"), files(REFERENCE, "md"), vec!["README.md".into()]].concat();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_ours = !link.is_empty() && !link.contains("://") && !link.contains(char::is_whitespace);
            let target = page.parent().unwrap().join(link);
            assert!(!is_ours || target.exists(), "{} links to {link}", page.display());
        }
    }
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
