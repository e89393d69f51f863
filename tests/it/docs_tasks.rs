//! The pages of tasks and the examples for Kubernetes: what no API server is needed for. `tests/nodeless/pages.rs` and
//! `tests/pages` run the other commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use redoubt::api::names;
use redoubt::model::UseKind;
use redoubt::model::node_config::{AGENT_PORT, REDIS_PORT, SENTINEL_PORT};
use serde_json::{Value, json};

use crate::charts::{helm, program};
use crate::docs::{files, yaml_blocks};

const TASKS: &str = "docs/tasks";

/// A block of shell of a page, and what the comment above it says.
struct Block {
    page: String,
    mark: Option<String>,
    text: String,
}

fn blocks(path: &Path) -> Vec<Block> {
    let text = fs::read_to_string(path).unwrap();
    let parts: Vec<&str> = text.split("```sh\n").collect();
    let marks = parts.iter().map(|part| {
        let above = part.lines().next_back().unwrap_or_default();
        above.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned)
    });
    let texts = parts[1..].iter().map(|part| part.split("```").next().unwrap().to_owned());
    marks.zip(texts).map(|(mark, text)| Block { page: path.display().to_string(), mark, text }).collect()
}

fn all_blocks() -> Vec<Block> {
    let blocks: Vec<Block> = files(TASKS, "md").iter().flat_map(|path| blocks(path)).collect();
    assert!(blocks.len() > 30, "{}", blocks.len());
    blocks
}

#[test]
fn each_block_of_shell_says_how_it_is_tested_or_why_not() {
    for Block { page, mark, text } in all_blocks() {
        let mark = mark.unwrap_or_else(|| panic!("{page}: no mark above:\n{text}"));
        let is_level = ["run", "helm"].contains(&mark.as_str());
        let has_reason = mark.strip_prefix("not run: ").is_some_and(|reason| reason.len() > 10);
        assert!(is_level || has_reason, "{page}: {mark}");
        // `helm` is looked at here only, so nothing else may be in such a block.
        let is_helms = text.lines().all(|line| line.starts_with("helm "));
        assert_eq!(is_helms, mark == "helm", "{page}:\n{text}");
    }
}

#[test]
fn each_helm_command_of_a_page_is_one_that_the_charts_take() {
    let marked = all_blocks().into_iter().filter(|block| block.mark.as_deref() == Some("helm"));
    let commands: Vec<String> =
        marked.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        if words[1] != "upgrade" {
            assert!(
                ["test", "uninstall", "rollback"].contains(&words[1]) && words[2].starts_with("redoubt"),
                "{command}"
            );
            continue;
        }
        let mut rendered = vec!["template"];
        rendered.extend(words[2..].iter().filter(|word| !["--install", "--wait", "--reuse-values"].contains(word)));
        if words.contains(&"--reuse-values") {
            rendered.extend(["--set", "image.repository=registry.example.com/redoubt"]);
        }
        let output = helm(&rendered);
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What `kubectl kustomize` makes of a folder.
fn kustomized(folder: &str) -> Vec<Value> {
    let output = Command::new(program("kubectl")).args(["kustomize", folder]).output().unwrap();
    assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap())
}

fn documents(text: &str) -> Vec<Value> {
    text.split("---\n")
        .filter(|part| part.contains("kind:"))
        .map(|part| serde_saphyr::from_str(part).unwrap())
        .collect()
}

fn read(path: &str) -> Vec<Value> {
    documents(&fs::read_to_string(path).unwrap())
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

#[test]
fn kustomize_puts_changed_names_into_every_field_that_names_an_object() {
    let base = kustomized("examples/kustomize/base");
    let objects = kustomized("examples/kustomize/production");
    assert_eq!(objects.len(), base.len());
    for object in &objects {
        assert!(object["metadata"]["name"].as_str().unwrap().starts_with("production-"), "{object}");
        let layer = &object["spec"]["layer"]["name"];
        assert!(layer.is_null() || *layer == one(&objects, "DataLayer")["metadata"]["name"], "{object}");
    }
    let library = one(&objects, "FunctionLibrary");
    assert_eq!(library["spec"]["source"]["configMap"]["name"], one(&objects, "ConfigMap")["metadata"]["name"]);
    let store = one(&objects, "SessionStore")["metadata"]["name"].as_str().unwrap();
    assert_eq!(one(&objects, "SessionStore")["spec"]["binding"]["secretName"], store);
    assert_eq!(secret_of(one(&objects, "Deployment")), store);
    // Every kind that names a layer is in the list.
    let known = fs::read_to_string("examples/kustomize/base/redoubt.yaml").unwrap();
    for definition in redoubt::api::custom_resource_definitions() {
        let kind = definition.spec.names.kind;
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let names_a_layer =
            schema.pointer("/openAPIV3Schema/properties/spec/properties/layer/properties/name").is_some();
        let line = format!("{{group: redoubt.dev, kind: {kind}, path: spec/layer/name}}");
        assert_eq!(known.contains(&line), names_a_layer, "{kind}");
        let names_a_secret =
            schema.pointer("/openAPIV3Schema/properties/spec/properties/binding/properties/secretName").is_some();
        let line = format!("{{group: redoubt.dev, kind: {kind}, path: spec/binding/secretName}}");
        assert_eq!(known.contains(&line), names_a_secret, "{kind}");
    }
}

/// Every object of the examples, each with its file.
fn examples() -> Vec<(PathBuf, Value)> {
    let folders = ["examples", "examples/application", "examples/kustomize/base"];
    let paths = folders.iter().flat_map(|folder| files(folder, "yaml"));
    let objects = paths.flat_map(|path| {
        let objects = read(&path.display().to_string());
        objects.into_iter().map(move |object| (path.clone(), object))
    });
    // What kustomize reads is no object, and has no name.
    objects.filter(|(_, object)| object["metadata"]["name"].is_string()).collect()
}

/// A reader applies them to one namespace. Of two that share a name the second one would change what of the first cannot be changed.
#[test]
fn no_two_examples_make_the_same_object() {
    let mut made = BTreeMap::new();
    for (path, object) in examples() {
        let key = (object["kind"].to_string(), object["metadata"]["name"].to_string());
        if let Some(other) = made.insert(key.clone(), path.clone()) {
            panic!("{key:?} is in {} and in {}", other.display(), path.display());
        }
    }
    assert!(made.len() > 12, "{made:#?}");
}

/// A use whose layer nothing makes has the reason `LayerNotFound`.
#[test]
fn each_layer_that_an_example_or_a_page_of_uses_names_is_made_by_one() {
    let of_pages = files("docs/uses", "md").into_iter().flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let objects: Vec<Value> = yaml_blocks(&text).iter().flat_map(|block| documents(block)).collect();
        objects.into_iter().map(move |object| (path.clone(), object))
    });
    let objects: Vec<(PathBuf, Value)> = examples().into_iter().chain(of_pages).collect();
    let made: BTreeSet<&str> = objects
        .iter()
        .filter(|(_, object)| object["kind"] == "DataLayer")
        .map(|(_, object)| object["metadata"]["name"].as_str().unwrap())
        .collect();
    let mut named = 0;
    for (path, object) in &objects {
        if let Some(layer) = object["spec"]["layer"]["name"].as_str() {
            named += 1;
            assert!(made.contains(layer), "{}: nothing makes the layer {layer}: {made:?}", path.display());
        }
    }
    assert!(named > 4, "{named}");
}

/// The Secret that a Deployment mounts.
fn secret_of(deployment: &Value) -> String {
    deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"].as_str().unwrap().to_owned()
}

#[test]
fn the_example_application_mounts_the_binding_where_its_client_looks_for_it() {
    let deployment = &read("examples/application/deployment.yaml")[0];
    let store = &read("examples/session-store.yaml")[0];
    let name = store["metadata"]["name"].as_str().unwrap();
    assert_eq!(secret_of(deployment), names::binding(UseKind::SessionStore, name));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let root = container["env"][0]["value"].as_str().unwrap();
    assert_eq!(container["env"][0]["name"], "SERVICE_BINDING_ROOT");
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["mountPath"], format!("{root}/{name}"));
    assert_eq!(mount["name"], deployment["spec"]["template"]["spec"]["volumes"][0]["name"]);
}

#[test]
fn the_example_network_policy_has_the_ports_and_labels_of_the_program() {
    let policy = &read("examples/application/network-policy.yaml")[0];
    let layer = policy["spec"]["podSelector"]["matchLabels"][names::LABEL_LAYER].as_str().unwrap();
    assert_eq!(layer, names::dedicated_layer(UseKind::SessionStore, "web"), "the layer of examples/session-store.yaml");
    let ports = |rule: &Value| -> Vec<u64> {
        rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_u64().unwrap()).collect()
    };
    let (all, servers) = ([REDIS_PORT, SENTINEL_PORT, AGENT_PORT], [REDIS_PORT, SENTINEL_PORT]);
    let (all, servers) = (all.map(u64::from), servers.map(u64::from));
    let ingress: Vec<Vec<u64>> = policy["spec"]["ingress"].as_array().unwrap().iter().map(ports).collect();
    assert_eq!(ingress, [&servers[..], &all, &all, &[u64::from(AGENT_PORT)]]);
    assert_eq!(policy["spec"]["egress"].as_array().unwrap().iter().map(ports).collect::<Vec<_>>(), [all.to_vec()]);
    // The labels are those that pods have.
    let own = json!({names::LABEL_LAYER: layer});
    assert_eq!(policy["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"], own);
    assert_eq!(policy["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"], own);
    let application = &read("examples/application/deployment.yaml")[0]["spec"]["template"]["metadata"]["labels"];
    assert_eq!(policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"], *application);
    let chart = fs::read_to_string("tests/golden/charts/default.yaml").unwrap();
    let operator = policy["spec"]["ingress"][2]["from"][0]["podSelector"]["matchLabels"].as_object().unwrap().clone();
    for (label, value) in operator {
        assert!(chart.contains(&format!("{label}: {}", value.as_str().unwrap())), "{label}");
    }
    let page = fs::read_to_string("docs/tasks/network.md").unwrap();
    for port in all {
        assert!(page.contains(&port.to_string()), "{port}");
    }
}

/// What a reader gets comes before the first command, table and heading.
#[test]
fn each_page_of_tasks_and_uses_opens_with_a_sentence() {
    for page in [files(TASKS, "md"), files("docs/uses", "md")].concat() {
        let text = fs::read_to_string(&page).unwrap();
        let mut lines = text.lines().filter(|line| !line.is_empty());
        assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "{}", page.display());
        let is_prose = |line: &str| line.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '`');
        assert!(lines.next().is_some_and(|line| is_prose(line) && !line.starts_with("```")), "{}", page.display());
    }
}

#[test]
fn every_page_of_tasks_uses_and_design_is_listed_where_a_reader_looks() {
    let index = fs::read_to_string("docs/README.md").unwrap();
    for page in [files(TASKS, "md"), files("docs/uses", "md"), files("docs/design", "md")].concat() {
        let link: PathBuf = page.strip_prefix("docs").unwrap().into();
        assert!(index.contains(&format!("]({})", link.display())), "docs/README.md does not name {}", page.display());
    }
}
