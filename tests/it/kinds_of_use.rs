//! What one more kind of use touches: the files that name a single kind. All others ask `model::uses` for a fact, or take plain data.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::imports::{sources, without_tests};

/// The files of each kind, and those where the kinds are put together: the whole list for one more kind, with its definition in `api`
/// and its rights in `redis/rights`, which need not name it.
const MAY_NAME_ONE: [&str; 14] = [
    "src/api/mod.rs",
    "src/api/uses.rs",
    "src/dataplane/caches.rs",
    "src/dataplane/limits.rs",
    "src/dataplane/mod.rs",
    "src/dataplane/sessions.rs",
    "src/model/uses.rs",
    "src/redis/rights/mod.rs",
    "src/validate/uses/cache_namespace.rs",
    "src/validate/uses/eviction.rs",
    "src/validate/uses/function_library.rs",
    "src/validate/uses/mod.rs",
    "src/validate/uses/rate_limit_policy.rs",
    "src/validate/uses/session_store.rs",
];

/// Enums with a variant for each kind.
const ENUMS: [&str; 3] = ["UseKind::", "Policy::", "UseSpec::"];

/// Whether a line names a variant of one of the enums. `ALL` is none, nor is a function.
fn names_a_kind(line: &str) -> bool {
    ENUMS.iter().any(|name| {
        line.match_indices(name).any(|(at, _)| {
            let is_whole = line[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
            let mut after = line[at + name.len()..].chars();
            let is_variant =
                after.next().is_some_and(char::is_uppercase) && after.next().is_some_and(char::is_lowercase);
            is_whole && is_variant
        })
    })
}

#[test]
fn a_single_kind_of_use_is_named_only_where_one_more_would_be_put_in() {
    let mut found = BTreeSet::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        if without_tests(&text).into_iter().any(names_a_kind) {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    assert_eq!(found, MAY_NAME_ONE.map(str::to_owned).into());
}

#[test]
fn a_line_that_asks_for_a_kind_is_found_and_one_that_asks_all_is_not() {
    assert!(names_a_kind("if kind == UseKind::CacheNamespace {"));
    assert!(names_a_kind("    let Policy::Limits(policy) = policy else { return };"));
    assert!(!names_a_kind("for kind in UseKind::ALL {"));
    assert!(!names_a_kind("let kind = UseKind::of(name);"));
    assert!(!names_a_kind("Some(PropagationPolicy::Background)"));
}
