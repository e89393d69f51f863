//! Stock cache libraries on each engine, unmodified, as the user of a cache and with what its binding says: plain commands under the
//! prefix, and what they cannot do.

use redoubt::dataplane::{cache_library, load};
use redoubt::model::UseKind;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::users;
use tokio::process::Command;

use crate::support::bound_layer::{BoundLayer, PREFIX, connect, installed, java, node, python, ruby};
use crate::support::cache_calls::{HOUR, policy};
use crate::support::engine_process::engines;

const CLEAR_REFUSED: &str = "clear is refused, and nothing is gone";
const ELSEWHERE: &str = "refused outside of the prefix";
/// What both of Django's backends do, django-redis and Django's own.
const DJANGO: [&str; 5] = [
    "set and read under the prefix",
    "every key ends, unless its caller says never",
    "add, touch, many, get_or_set",
    "a late set brings back what was invalidated",
    "every caller that misses computes",
];
const DJANGO_REDIS: [&str; 3] =
    ["two of incr at once count as one: its script is refused", "delete_pattern is refused: it scans", CLEAR_REFUSED];
const DJANGOS_OWN: [&str; 3] = ["incr", CLEAR_REFUSED, ELSEWHERE];
const SPRING: [&str; 7] = [
    "set and read under the prefix",
    "every key ends",
    "putIfAbsent, loader, evict",
    "a late set brings back what was invalidated",
    CLEAR_REFUSED,
    "clear by scan is refused too",
    ELSEWHERE,
];
const CACHE_MANAGER: [&str; 6] = [
    "set and read under the prefix",
    "every key ends",
    "many, wrap, del",
    "a late set brings back what was invalidated",
    CLEAR_REFUSED,
    ELSEWHERE,
];

const RAILS: [&str; 8] = [
    "set and read under the prefix",
    "every key ends",
    "many, fetch, delete, increment",
    "a late set brings back what was invalidated",
    "every caller that misses computes",
    "while one computes what ended, the others get the old value: race_condition_ttl",
    CLEAR_REFUSED,
    ELSEWHERE,
];

/// Runs a library's program on each engine: it holds these claims.
async fn holds(program: impl Fn() -> Command, claims: &[&str]) {
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::CacheNamespace, PREFIX, false).await;
        layer.claims(&engine, &program, claims).await;
    }
}

#[tokio::test]
async fn djangos_cache_works_under_a_prefix() {
    let folder = installed("python").await;
    let claims = [&DJANGO[..], &DJANGO_REDIS, &DJANGO, &DJANGOS_OWN].concat();
    holds(|| python(&folder, "tests/clients/python/with_django_cache.py"), &claims).await;
}

#[tokio::test]
async fn cache_manager_works_under_a_prefix() {
    let folder = installed("node").await;
    holds(|| node(&folder, "tests/clients/node/cache-manager.mjs"), &CACHE_MANAGER).await;
}

#[tokio::test]
async fn rails_cache_works_under_a_prefix() {
    installed("ruby").await;
    holds(|| ruby("tests/clients/ruby/rails-cache.rb"), &RAILS).await;
}

#[tokio::test]
async fn spring_cache_works_under_a_prefix() {
    let folder = installed("java").await;
    holds(|| java(&folder, "tests/clients/java/SpringCache.java"), &SPRING).await;
}

/// What `make demo` shows: a thousand reads while the source is down are served stale, and the source is asked once.
#[tokio::test]
async fn the_demos_application_is_served_stale_with_the_binding_while_the_source_is_down() {
    let namespace = CachePolicy { stale_ms: HOUR, jitter_percent: 10, ..policy(PREFIX.trim_end_matches(':')) };
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::CacheNamespace, PREFIX, false).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &cache_library(std::slice::from_ref(&namespace))).await.unwrap();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_redoubt"));
        demo.args(["demo", "--binding"]).arg(layer.binding("cache")).args(["stale", "1000"]);
        let said: serde_json::Value = serde_json::from_str(&layer.run(demo).await[0]).unwrap();
        println!("{}: {said}", engine.name);
        for (field, expected) in [("stale", 1_000), ("asked", 1), ("errors", 0)] {
            assert_eq!(said[field], expected, "{field}: {said}");
        }
        assert_eq!(said["fresh"], true, "{said}");
    }
}
