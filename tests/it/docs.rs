//! The documents: what they show is what the code takes, and what the code says is explained. The generated pages:
//! `docs_reference.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::api::function_library::FunctionLibrary;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use redoubt::api::session_store::SessionStore;
use redoubt::api::uses::DeclaredUse;
use redoubt::dataplane::user_library;
use redoubt::model::UseKind;
use redoubt::validate::{DataVolumes, ResolvedDefaults, admit, admit_as_written, uses, validate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::docs_reference::REFERENCE;

/// The files of a folder with this extension, in order.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// The pages that are written by hand.
fn pages() -> Vec<PathBuf> {
    [files("docs", "md"), files("docs/tasks", "md"), files("docs/uses", "md"), vec!["README.md".into()]].concat()
}

/// The blocks of a document that are marked as YAML.
pub fn yaml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// What is decided for a layer that is made.
fn resolved() -> ResolvedDefaults {
    ResolvedDefaults {
        engine_image: "engine".to_owned(),
        agent_image: "agent".to_owned(),
        volumes: DataVolumes::Undecided,
        shares: None,
        allowed_images: Vec::new(),
        service_domain: "svc".to_owned(),
    }
}

/// Admission and validation, as for an object of the API server.
fn accept(text: &str, place: &str) {
    let mut value: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"));
    value["metadata"]["namespace"] = json!("shop");
    value["metadata"]["uid"] = json!("5f0e6f7e-1111-4222-8333-944444444444");
    if value["kind"] == "HorizontalPodAutoscaler" {
        // The API server judges it: `nodeless caches::`.
        assert_eq!(value["spec"]["scaleTargetRef"]["kind"], "DataLayer", "{place}");
        return;
    }
    match value["kind"].as_str().and_then(UseKind::of) {
        Some(UseKind::SessionStore) => return accept_use::<SessionStore>(value, place),
        Some(UseKind::RateLimitPolicy) => return accept_use::<RateLimitPolicy>(value, place),
        Some(UseKind::CacheNamespace) => return accept_use::<CacheNamespace>(value, place),
        Some(UseKind::FunctionLibrary) => return accept_library(value, place),
        None => {}
    }
    assert_known_fields(&value["spec"], place);
    let layer: DataLayer = serde_json::from_value(value).unwrap_or_else(|error| panic!("{place}: {error}"));
    admit(&layer).unwrap_or_else(|errors| panic!("{place}: {errors:?}"));
    validate(&layer, &resolved()).unwrap_or_else(|faults| panic!("{place}: {faults:?}"));
}

/// Fields without their texts: a duration is read in one spelling and written in another.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => Value::Null,
        other => other.clone(),
    }
}

fn accept_use<K>(value: Value, place: &str)
where
    K: DeserializeOwned + Serialize + ValidateCel + Into<DeclaredUse> + Clone,
{
    let spec = value["spec"].clone();
    let read: K = serde_json::from_value(value).unwrap_or_else(|error| panic!("{place}: {error}"));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(shape(&written["spec"]), shape(&spec), "{place}: a field is unknown");
    read.validate().unwrap_or_else(|errors| panic!("{place}: {errors}"));
    uses::validate(&read.into(), 2).unwrap_or_else(|faults| panic!("{place}: {faults:?}"));
}

/// The rules of admission of a kind of use.
trait ValidateCel {
    fn validate(&self) -> Result<(), String>;
}

impl ValidateCel for SessionStore {
    fn validate(&self) -> Result<(), String> {
        admit(self).map_err(|errors| format!("{errors:?}"))
    }
}

impl ValidateCel for CacheNamespace {
    fn validate(&self) -> Result<(), String> {
        admit(self).map_err(|errors| format!("{errors:?}"))
    }
}

impl ValidateCel for FunctionLibrary {
    fn validate(&self) -> Result<(), String> {
        admit(self).map_err(|errors| format!("{errors:?}"))
    }
}

impl ValidateCel for RateLimitPolicy {
    fn validate(&self) -> Result<(), String> {
        admit(self).map_err(|errors| format!("{errors:?}"))
    }
}

fn accept_library(value: Value, place: &str) {
    if let Some(source) = value["spec"]["source"]["inline"].as_str() {
        user_library("shop", "web", source).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
    accept_use::<FunctionLibrary>(value, place);
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
    for path in pages() {
        for block in yaml_blocks(&fs::read_to_string(&path).unwrap()) {
            accept(&block, &path.display().to_string());
            count += 1;
        }
    }
    assert!(count > 0, "no document shows a layer");
}

/// Pages and the field's description name them.
#[test]
fn the_least_memory_that_is_told_to_people_is_the_least_that_is_accepted() {
    let is_accepted = |purpose: &str, limit: u32| {
        let memory = json!({"limit": format!("{limit}Mi")});
        let layer: DataLayer = serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer",
            "metadata": {"name": "web", "namespace": "shop", "uid": "5f0e6f7e-1111-4222-8333-944444444444"},
            "spec": {"mode": "Sentinel", "purpose": purpose, "memory": memory},
        }))
        .unwrap();
        validate(&layer, &resolved()).is_ok()
    };
    let refused = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": "web"},
        "spec": {"mode": "Sentinel", "memory": {"limit": "8Mi"}}});
    let admission = admit_as_written::<DataLayer>(&refused).unwrap_err().to_string();
    let reference = fs::read_to_string("docs/reference/data-layer.md").unwrap();
    let page = fs::read_to_string("docs/concepts.md").unwrap();
    for (purpose, least) in [("Mixed", 73), ("Sessions", 73), ("Cache", 92)] {
        for told in [&admission, &reference] {
            assert!(told.contains(&format!("{least}Mi")), "{purpose}: {told}");
        }
        assert!(is_accepted(purpose, least) && !is_accepted(purpose, least - 1), "{purpose}");
        assert!(page.contains(&format!("{least}Mi")), "{least}");
    }
}

/// The client in each language, by the word that marks its blocks.
const CLIENTS: [(&str, &str); 5] = [
    ("python", "examples/clients/python/login.py"),
    ("js", "examples/clients/node/login.mjs"),
    ("go", "examples/clients/go/main.go"),
    ("rust", "examples/clients/rust/login.rs"),
    ("java", "examples/clients/java/Login.java"),
];

/// Of caches.
const CACHES: [(&str, &str); 4] = [
    ("python", "examples/clients/python/cache.py"),
    ("js", "examples/clients/node/cache.mjs"),
    ("go", "examples/clients/go/cache/main.go"),
    ("rust", "examples/clients/rust/cache.rs"),
];

/// The clients are run by `stock_clients`; what the pages show of them must be the very lines.
#[test]
fn the_pages_show_each_client_as_it_is_run() {
    let pages =
        [("docs/tasks/connect.md", &CLIENTS[..]), ("README.md", &CLIENTS[..1]), ("docs/uses/caches.md", &CACHES[..])];
    for (path, clients) in pages {
        let page = fs::read_to_string(path).unwrap();
        for (language, program) in clients {
            let client = fs::read_to_string(program).unwrap();
            let bare = |text: &str| text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
            let blocks: Vec<&str> = page.split(&format!("```{language}\n")).skip(1).collect();
            assert_eq!(blocks.len(), 1, "{path}: {language}");
            let shown = bare(blocks[0].split("```").next().unwrap());
            assert!(
                shown.lines().count() >= 10 && bare(&client).contains(&shown),
                "{path} does not show lines of {program}"
            );
        }
    }
}

/// Pages that name the claim for each of their rows, with the least number of claims that they name.
const PAGES_OF_CLAIMS: [(&str, usize); 4] = [
    ("docs/design/attacks.md", 100),
    ("docs/design/first-hours.md", 70),
    ("docs/design/review.md", 20),
    ("docs/design/tests.md", 55),
];

#[test]
fn every_claim_that_a_page_names_is_there() {
    let sources: Vec<(String, String)> = ["tests", "src"]
        .iter()
        .flat_map(|folder| crate::imports::sources(Path::new(folder)))
        .map(|path| (path.to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    for (page, least) in PAGES_OF_CLAIMS {
        let text = fs::read_to_string(page).unwrap();
        let named: Vec<(&str, &str)> = code_words(&text).iter().filter_map(|text| text.split_once("::")).collect();
        assert!(named.len() > least, "{page}: {}", named.len());
        for (module, name) in named {
            let is_it = |(path, source): &(String, String)| {
                let is_there = path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"));
                (is_there || module == "tests") && source.contains(&format!("fn {name}("))
            };
            assert!(sources.iter().any(is_it), "{page}: no claim {module}::{name}");
        }
    }
}

/// The names of a page's headings in its links.
fn anchors(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).collect::<String>();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |letter: &char| letter.is_alphanumeric() || ['-', '_'].contains(letter);
    headings.map(|heading| heading.to_lowercase().replace(' ', "-").chars().filter(is_kept).collect()).collect()
}

#[test]
fn the_page_of_the_first_hours_has_a_row_for_each_number_with_a_claim_or_a_file() {
    let page = fs::read_to_string("docs/design/first-hours.md").unwrap();
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
    let numbers: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let all: Vec<String> = (1..=46).map(|it| it.to_string()).chain((1..=12).map(|it| format!("B{it}"))).collect();
    assert_eq!(numbers, all);
    for row in rows {
        let shown = code_words(row[3]);
        let is_shown = |word: &&str| word.contains("::") || Path::new(word).is_file();
        assert!(!shown.is_empty() && shown.iter().all(is_shown), "{}: {shown:?}", row[0]);
    }
}

#[test]
fn the_page_of_the_review_has_a_row_for_each_fault_with_a_claim_or_a_file_or_says_that_code_is_gone() {
    let page = fs::read_to_string("docs/design/review.md").unwrap();
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
    let numbers: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(numbers, (1..=30).map(|it| format!("F{it}")).collect::<Vec<_>>());
    for row in rows {
        let words = code_words(row[2]);
        let files: Vec<&&str> =
            words.iter().filter(|word| word.starts_with("src/") || word.starts_with("tests/")).collect();
        assert!(files.iter().all(|file| Path::new(file).exists()), "{}: {files:?}", row[0]);
        let is_shown = !files.is_empty() || words.iter().any(|word| word.contains("::"));
        assert!(is_shown || row[2].contains("gone") || row[2].contains("crate"), "{}: {words:?}", row[0]);
    }
}

#[test]
fn every_source_file_that_a_page_names_is_there() {
    let mut count = 0;
    for page in [pages(), files("docs/design", "md")].concat() {
        let text = fs::read_to_string(&page).unwrap();
        for path in code_words(&text).into_iter().filter(|word| word.starts_with("src/")) {
            assert!(Path::new(path).exists(), "{} names {path}", page.display());
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// The cells of a row of a table.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_of_it() {
    let charts = ["charts/redoubt", "charts/redoubt-crds"].map(|folder| files(folder, "md"));
    let mut count = 0;
    for page in [pages(), files(REFERENCE, "md"), files("docs/design", "md"), charts.concat()].concat() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) || link.is_empty() {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}", page.display());
            if !anchor.is_empty() {
                let headings = anchors(&fs::read_to_string(&target).unwrap());
                assert!(headings.iter().any(|heading| heading == anchor), "{} links to {link}", page.display());
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
    assert_eq!(anchors("# A `b_c` d: e\n```\n# no\n```\n"), ["a-b_c-d-e"]);
}

/// The texts between backquotes.
fn code_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The conditions that a source names. Their variants are spelt as their types.
fn conditions_of(source: &str) -> Vec<&str> {
    let behind = source.split("ConditionKind::").skip(1);
    behind.filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_alphabetic()).next()).collect()
}

#[test]
fn every_condition_and_reason_of_the_code_is_explained_to_operators() {
    let text = fs::read_to_string("docs/operations.md").unwrap();
    let explained = code_words(&text);
    let source = |file: &str| fs::read_to_string(format!("src/report/{file}.rs")).unwrap();
    let sources = ["conditions", "service", "degraded"].map(source);
    let code = sources.each_ref().map(|text| text.split("#[cfg(test)]").next().unwrap()).concat();
    let is_name = |word: &&str| {
        word.len() > 3
            && word.starts_with(|letter: char| letter.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_alphabetic())
            && !["True", "False", "Unknown"].contains(word)
    };
    let reasons: Vec<&str> = code.split('"').skip(1).step_by(2).filter(is_name).collect();
    let conditions = conditions_of(&code);
    assert!(reasons.len() > 25 && conditions.len() > 8, "{reasons:?}, {conditions:?}");
    let types = source("draft");
    for name in &conditions {
        assert!(types.contains(&format!("Self::{name} => \"{name}\"")), "{name} is the type of another condition");
    }
    for name in reasons.into_iter().chain(conditions).chain(["NameTaken", "Invalid", "NotAccepted"]) {
        assert!(explained.contains(&name), "docs/operations.md does not explain `{name}`");
    }
}

/// The word in front of each text that tells why a node's data cannot be used.
fn unusable_words(source: &str) -> Vec<&str> {
    let product = source.split("#[cfg(test)]").next().unwrap();
    let texts = product.split("set_unusable(Some(").skip(1);
    texts.map(|text| text.split('"').nth(1).unwrap().split(':').next().unwrap()).collect()
}

#[test]
fn every_state_that_waits_for_a_person_is_explained_to_operators() {
    let text = fs::read_to_string("docs/operations.md").unwrap();
    let recovery = text.split("## Recovery\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let explained = code_words(recovery);
    let decision = fs::read_to_string("src/model/boot/decision.rs").unwrap();
    let words = decision.split("impl WaitReason").nth(1).unwrap().split("match self {").nth(1).unwrap();
    let waits: Vec<&str> = words.split('}').next().unwrap().split('"').skip(1).step_by(2).collect();
    assert!(waits.len() > 10, "{waits:?}");
    let agent =
        [files("src/agent", "rs"), files("src/agent/watch", "rs"), files("src/agent/file_links", "rs")].concat();
    let sources: Vec<String> = agent.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let unusable: Vec<&str> = sources.iter().flat_map(|source| unusable_words(source)).collect();
    assert!(unusable.len() >= 4, "{unusable:?}");
    for word in waits.into_iter().chain(unusable).chain(["AskForFailover", "Follow"]) {
        assert!(explained.contains(&word), "the recovery of docs/operations.md does not explain `{word}`");
    }
}

#[test]
fn every_annotation_that_a_document_names_is_one_of_ours() {
    let names = fs::read_to_string("src/api/names.rs").unwrap();
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for word in code_words(&text).into_iter().filter(|word| word.starts_with("redoubt.dev/") && !word.contains('*'))
        {
            let name = word.split(['=', ':']).next().unwrap();
            let is_ours = names.contains(&format!("\"{name}\""));
            assert!(is_ours || word == "redoubt.dev/v1alpha1", "{}: {word}", path.display());
        }
    }
}

#[test]
fn the_status_has_every_part_that_the_documents_promise() {
    let schema = serde_json::to_value(schemars::schema_for!(DataLayerStatus)).unwrap();
    for field in
        ["conditions", "nodes", "memory", "checklist", "binding", "primary", "version", "observedGeneration", "audit"]
    {
        assert!(schema["properties"][field].is_object(), "{field}");
    }
}

#[test]
fn every_condition_and_reason_of_a_session_store_is_explained() {
    // Reasons that only other kinds have are in their pages.
    let pages = ["docs/uses/sessions.md", "docs/uses/functions.md", "docs/uses/caches.md"]
        .map(|path| fs::read_to_string(path).unwrap());
    let text = pages.concat();
    let explained = code_words(&text);
    let is_name = |word: &&str| {
        word.len() > 3
            && word.starts_with(|letter: char| letter.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_alphabetic())
    };
    let mut count = 0;
    for path in [
        "src/report/uses.rs",
        "src/report/uses/conditions.rs",
        "src/validate/uses/mod.rs",
        "src/validate/uses/session_store.rs",
        "src/validate/uses/tenancy.rs",
        "src/validate/uses/host.rs",
        "src/validate/uses/places.rs",
        "src/validate/uses/neighbours.rs",
        "src/controller/uses/reconcile.rs",
    ] {
        let source = fs::read_to_string(path).unwrap();
        let words = source.split('"').skip(1).step_by(2).filter(is_name);
        for name in words.chain(conditions_of(&source)).filter(|name| !["True", "SessionStore"].contains(name)) {
            assert!(explained.contains(&name), "docs/uses does not explain `{name}` of {path}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
