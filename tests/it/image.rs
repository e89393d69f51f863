//! What is shipped and what may be in it: the facts of `Dockerfile`, where Docker is not at hand, and of `deny.toml` and
//! `LICENSE`, which `make deny` holds against the dependencies.

use std::collections::BTreeMap;
use std::fs;

/// The instructions of the Dockerfile, continued lines joined: instruction, arguments.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string("Dockerfile").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instruction = |line: &str| {
        let (name, arguments) = line.split_once(' ').unwrap_or_else(|| panic!("not an instruction: {line}"));
        (name.to_owned(), arguments.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    joined.lines().filter(|line| !line.trim().is_empty()).map(instruction).collect()
}

/// The instructions of each stage, its `FROM` first.
fn stages() -> Vec<Vec<(String, String)>> {
    let mut stages: Vec<Vec<(String, String)>> = Vec::new();
    for instruction in instructions() {
        if instruction.0 == "FROM" {
            stages.push(Vec::new());
        }
        stages.last_mut().expect("the file begins with FROM").push(instruction);
    }
    stages
}

fn manifest(field: &str) -> String {
    let text = fs::read_to_string("Cargo.toml").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field} = "))).unwrap();
    line.trim_matches('"').to_owned()
}

#[test]
fn the_image_is_empty_but_for_one_binary_and_runs_without_rights() {
    let stages = stages();
    assert_eq!(stages.len(), 2);
    let owned = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
    assert_eq!(
        stages[1],
        [
            owned("FROM", "scratch"),
            owned("COPY", "--from=build /image/redoubt /redoubt"),
            owned("USER", "65532:65532"),
            owned("ENTRYPOINT", r#"["/redoubt"]"#),
            owned("CMD", r#"["operator"]"#),
        ]
    );
}

#[test]
fn the_build_is_static_locked_and_for_both_architectures() {
    let stages = stages();
    let build = &stages[0];
    assert_eq!(build[0].1, format!("--platform=$BUILDPLATFORM rust:{}-bookworm AS build", manifest("rust-version")));
    assert!(build.contains(&("ARG".to_owned(), "TARGETARCH".to_owned())));
    let of =
        |name: &str| build.iter().filter(|(known, _)| known == name).map(|(_, text)| text.as_str()).collect::<Vec<_>>();
    assert_eq!(of("COPY"), ["Cargo.toml Cargo.lock ./", "src ./src"]);
    let environment = of("ENV").concat();
    assert!(environment.contains(r#"RUSTFLAGS="-C target-feature=+crt-static""#));
    let compile = of("RUN").pop().unwrap();
    assert!(compile.contains("cargo build --locked --release --bin redoubt --target \"$target\""), "{compile}");
    for (architecture, target) in [("amd64", "x86_64-unknown-linux-gnu"), ("arm64", "aarch64-unknown-linux-gnu")] {
        assert!(compile.contains(&format!("{architecture}) target={target} ;;")), "{compile}");
        assert!(of("RUN")[0].contains(target), "rustup gets {target}");
        let variable = target.replace('-', "_");
        assert!(environment.contains(&format!("CC_{variable}=")), "{environment}");
        assert!(environment.contains(&format!("CARGO_TARGET_{}_LINKER=", variable.to_uppercase())), "{environment}");
    }
    assert!(compile.contains("*) echo") && compile.contains("exit 1"), "any other architecture is an error");
}

#[test]
fn the_build_names_no_host_of_the_network() {
    for (name, arguments) in instructions() {
        assert!(!arguments.contains("://") && name != "ADD", "{name} {arguments}");
        if name == "FROM" {
            let image = arguments.split(' ').find(|word| !word.starts_with("--")).unwrap();
            let before_tag = image.split(':').next().unwrap();
            assert!(!before_tag.contains('.') && !image.ends_with(":latest"), "{image}");
        }
    }
}

/// Crates that the lock file has in several versions.
fn versions() -> BTreeMap<String, Vec<String>> {
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(text) = line.strip_prefix("name = ") {
            text.trim_matches('"').clone_into(&mut name);
        } else if let Some(text) = line.strip_prefix("version = \"") {
            versions.entry(name.clone()).or_default().push(text.trim_matches('"').to_owned());
        }
    }
    versions
}

/// Crates with a version that only other systems build, or only a feature that nobody asks for (`hashbrown`): `deny.toml`
/// judges what is built for images.
const NOT_BUILT: [&str; 3] = ["hashbrown", "r-efi", "windows-sys"];

#[test]
fn every_crate_of_two_versions_is_excused_with_a_reason_and_no_excuse_is_stale() {
    let deny = fs::read_to_string("deny.toml").unwrap();
    assert!(deny.contains("multiple-versions = \"deny\""));
    let excuses: Vec<(&str, &str)> = deny
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \""))
        .map(|line| {
            let (krate, rest) = line.split_once('"').unwrap();
            assert!(rest.contains("reason = \""), "{krate} has no reason");
            krate.split_once('@').unwrap()
        })
        .collect();
    let mut needed = 0;
    for (name, versions) in versions() {
        if versions.len() < 2 || NOT_BUILT.contains(&name.as_str()) {
            continue;
        }
        let is_excused = |version: &&String| {
            excuses.iter().any(|(krate, prefix)| *krate == name && version.starts_with(&format!("{prefix}.")))
        };
        let count = versions.iter().filter(is_excused).count();
        assert_eq!(count, versions.len() - 1, "{name} {versions:?}: all but one version need a reason");
        needed += count;
    }
    assert_eq!(needed, excuses.len(), "an excuse is for a version that nobody uses any more");
}

#[test]
fn the_licence_is_the_one_that_the_manifest_names() {
    assert_eq!(manifest("license"), "Apache-2.0");
    let text = fs::read_to_string("LICENSE").unwrap();
    assert!(text.contains("Apache License") && text.contains("Version 2.0, January 2004"));
    assert!(text.contains("END OF TERMS AND CONDITIONS"));
}
