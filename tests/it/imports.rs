//! Who may import whom: the `crate::` paths of the source, held against the table in `src/lib.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → the modules of ours that it may use, itself aside.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("model", vec![]),
        ("api", vec!["model"]),
        ("plan", vec!["model"]),
        ("validate", vec!["model", "api"]),
        ("build", vec!["model", "api", "validate"]),
        ("report", vec!["model", "api", "plan"]),
        ("redis", vec!["model"]),
        ("dataplane", vec!["model", "redis"]),
        ("observe", vec!["model", "api", "redis", "dataplane"]),
        ("act", vec!["model", "api", "redis", "dataplane", "plan"]),
        ("agent", vec!["model", "redis", "dataplane"]),
    ])
}

/// Support modules, which every module that does IO may use.
const SUPPORT: [&str; 4] = ["failure", "metrics", "telemetry", "lease"];
/// The modules that do IO.
const DOES_IO: [&str; 3] = ["observe", "act", "agent"];

/// Crates that a module must never see.
fn forbidden(module: &str) -> &'static [&'static str] {
    match module {
        "model" | "plan" => &["kube", "k8s_openapi", "redis", "tokio", "rand", "std::time::SystemTime", "HashMap"],
        "api" | "validate" | "build" | "report" => &["kube::Client", "kube::Api", "redis::", "tokio"],
        "redis" | "dataplane" | "agent" => &["kube", "k8s_openapi"],
        _ => &[],
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file: without comments, and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn breaches(module: &str, allowed: &[&str], code: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (index, _) in code.match_indices("crate::") {
        let rest = &code[index + "crate::".len()..];
        let name: String = rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect();
        let is_support = DOES_IO.contains(&module) && SUPPORT.contains(&name.as_str());
        if name != module && !allowed.contains(&name.as_str()) && !is_support {
            breaches.push(format!("crate::{name}"));
        }
    }
    let outside = code.replace("crate::", "");
    for name in forbidden(module) {
        let uses = [format!("use {name}"), format!("{name}::")];
        if uses.iter().any(|text| outside.contains(text.as_str())) && !name.starts_with(module) {
            breaches.push((*name).to_owned());
        }
    }
    breaches
}

#[test]
fn no_module_imports_what_the_table_forbids() {
    for (module, allowed) in table() {
        for path in sources(&Path::new("src").join(module)) {
            let found = breaches(module, &allowed, &code(&path));
            assert!(found.is_empty(), "{} uses {found:?}", path.display());
        }
    }
}

#[test]
fn a_forbidden_import_is_found() {
    assert_eq!(breaches("plan", &["model"], "use crate::api::names;"), ["crate::api"]);
    assert_eq!(breaches("model", &[], "use tokio::time::sleep;"), ["tokio"]);
    assert!(breaches("plan", &["model"], "use crate::model::NodeId;").is_empty());
}
