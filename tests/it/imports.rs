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
        ("observe", vec!["model", "api", "redis", "dataplane", "answers"]),
        ("act", vec!["model", "api", "redis", "dataplane", "plan", "answers"]),
        ("agent", vec!["model", "redis", "dataplane", "answers"]),
        ("answers", vec!["model"]),
        ("failure", vec![]),
        ("telemetry", vec![]),
        ("lease", vec!["telemetry", "failure"]),
        ("metrics", vec![]),
        ("per_object", vec![]),
        ("check", vec![]),
        ("demo", vec!["redis"]),
        ("cli", vec!["agent", "api", "check", "controller", "demo", "telemetry"]),
    ])
}

/// Support modules, which every module that does IO may use.
const SUPPORT: [&str; 5] = ["failure", "metrics", "per_object", "telemetry", "lease"];
/// The modules that do IO.
const DOES_IO: [&str; 3] = ["observe", "act", "agent"];

/// Crates that a module must never see.
fn forbidden(module: &str) -> &'static [&'static str] {
    match module {
        "model" | "plan" => &["kube", "k8s_openapi", "redis", "tokio", "rand", "std::time::SystemTime", "HashMap"],
        "api" | "validate" | "build" | "report" => &["kube::Client", "kube::Api", "redis::", "tokio"],
        "redis" | "dataplane" | "agent" | "demo" => &["kube", "k8s_openapi"],
        _ => &[],
    }
}

pub(super) fn sources(folder: &Path) -> Vec<PathBuf> {
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

/// The files of a module: its folder, or its one file.
fn files(module: &str) -> Vec<PathBuf> {
    let folder = Path::new("src").join(module);
    if folder.is_dir() { sources(&folder) } else { vec![folder.with_extension("rs")] }
}

/// How many `super::` lead from a file to the crate's root.
fn depth(path: &Path) -> usize {
    let components = path.strip_prefix("src").unwrap().components().count();
    if path.ends_with("mod.rs") { components - 1 } else { components }
}

/// The lines of a file without comments and without items that only tests have.
pub(super) fn without_tests(text: &str) -> Vec<&str> {
    let mut code = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
            continue;
        }
        // rustfmt: an item ends on its first line, or with a brace below its beginning.
        let indent = &line[..line.len() - line.trim_start().len()];
        for skipped in lines.by_ref() {
            let ends = skipped.trim_end() == format!("{indent}}}") || skipped.trim_end().ends_with(';');
            if ends && skipped.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' ')) {
                break;
            }
        }
    }
    code
}

/// The code of a file, with the ways out of its module by `super::` written as those from the root.
fn code(text: &str, depth: usize) -> String {
    without_tests(text).join("\n").replace(&"super::".repeat(depth), "crate::")
}

/// The modules that code names from the crate's root, those of `crate::{…}` included.
fn from_the_root(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect()
    };
    let mut names = Vec::new();
    for (index, found) in code.match_indices("crate::") {
        let rest = &code[index + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        names.push(name(group));
        let mut depth = 0_i32;
        for (position, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(name(&group[position + 1..])),
                _ => {}
            }
        }
    }
    // A comma may end a group.
    names.retain(|name| !name.is_empty());
    names
}

fn breaches(module: &str, allowed: &[&str], code: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for name in from_the_root(code) {
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
        for path in files(module) {
            let text = fs::read_to_string(&path).unwrap();
            let found = breaches(module, &allowed, &code(&text, depth(&path)));
            assert!(found.is_empty(), "{} uses {found:?}", path.display());
        }
    }
}

/// `controller` is where the steps meet.
#[test]
fn every_module_but_the_controller_is_in_the_table() {
    let map = fs::read_to_string("src/lib.rs").unwrap();
    let declared = |line: &str| line.strip_suffix(';')?.split_once("mod ").map(|(_, module)| module.to_owned());
    let modules: Vec<String> = map.lines().filter_map(declared).collect();
    let missing: Vec<_> = modules.iter().filter(|module| !table().contains_key(module.as_str())).collect();
    assert_eq!(missing, ["controller"]);
}

#[test]
fn a_forbidden_import_is_found() {
    assert_eq!(breaches("plan", &["model"], "use crate::api::names;"), ["crate::api"]);
    assert_eq!(breaches("plan", &["model"], "use crate::{\n    model::{NodeId, Mode},\n    act,\n};"), ["crate::act"]);
    assert_eq!(breaches("model", &[], "use tokio::time::sleep;"), ["tokio"]);
    assert!(breaches("plan", &["model"], "use crate::model::NodeId;").is_empty());
}

#[test]
fn a_way_out_by_super_is_found_and_a_sibling_is_none() {
    let found = |text: &str, path: &str| breaches("plan", &["model"], &code(text, depth(Path::new(path))));
    assert_eq!(found("use super::super::api::names;", "src/plan/roll.rs"), ["crate::api"]);
    assert_eq!(found("use super::api::names;", "src/plan/mod.rs"), ["crate::api"]);
    assert!(found("use super::roles::data;", "src/plan/roll.rs").is_empty());
    assert!(found("use super::super::model::NodeId;", "src/plan/roll.rs").is_empty());
}

#[test]
fn code_after_an_item_of_tests_is_read_and_the_item_is_not() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::api::names;\n}\n\nuse crate::act::Writer;\n\
                #[cfg(test)]\nuse crate::build::pod;\nuse crate::report::status;\n";
    assert_eq!(breaches("plan", &["model"], &code(text, 2)), ["crate::act", "crate::report"]);
}

/// Numbers come from peers and disks: in a release a sum of them would become a small number without a word.
#[test]
fn a_release_is_compiled_with_overflow_checks() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let release = manifest.split("\n[").find_map(|table| table.strip_prefix("profile.release]")).unwrap();
    assert!(release.lines().any(|line| line == "overflow-checks = true"), "{release}");
}

/// Clocks of two machines differ, and each may jump: what is compared between nodes, or waited for, is a monotonic time or a number that a node
/// counts. File → what it asks a wall clock for.
const WALL_CLOCKS: [(&str, &str); 7] = [
    ("src/agent/aside/folders.rs", "the name of a kept folder"),
    ("src/agent/audit/mod.rs", "when an audit ended, for a person"),
    (
        "src/agent/lineage_file.rs",
        "which of two files of one node was written last, where the append-only file was switched off",
    ),
    ("src/agent/wall_clock.rs", "whether this machine's own clock was set back, which a Sentinel measures by"),
    ("src/controller/layer/facts.rs", "for how long Kubernetes' own times say that a node is away"),
    ("src/controller/publish.rs", "the times of a status"),
    ("src/lease.rs", "the times that the lease shows; who holds it is decided by a monotonic clock"),
];

#[test]
fn wall_clocks_are_asked_for_nothing_that_nodes_compare() {
    const ASKED: [&str; 4] = ["SystemTime::now", "Timestamp::now", ".modified()", "UNIX_EPOCH.elapsed"];
    let mut asking: Vec<String> = Vec::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        if without_tests(&text).iter().any(|line| ASKED.iter().any(|word| line.contains(word))) {
            asking.push(path.display().to_string());
        }
    }
    asking.sort();
    assert_eq!(asking, WALL_CLOCKS.map(|(path, _)| path));
}
