//! Stock cache libraries on each engine, unmodified, as the user of a cache and with what its binding says: plain commands under the
//! prefix, and what they cannot do.

use redoubt::model::UseKind;
use tokio::process::Command;

use crate::support::bound_layer::{BoundLayer, PREFIX, installed, java, node, python};
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
async fn spring_cache_works_under_a_prefix() {
    let folder = installed("java").await;
    holds(|| java(&folder, "tests/clients/java/SpringCache.java"), &SPRING).await;
}
