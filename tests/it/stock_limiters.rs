//! Stock limiter libraries on each engine, unmodified, as the user of a rate limit policy and with what its binding says. They bring
//! scripts, which the user may run only with `access.scripts`: each is run with and without.

use redoubt::dataplane::{limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::limit_policy::Algorithm;
use redoubt::redis::users;
use tokio::process::Command;

use crate::support::bound_layer::{BoundLayer, PREFIX, connect, installed, java, node, python};
use crate::support::engine_process::engines;
use crate::support::limit_calls::{MINUTE, single};

const LIMITS: [&[&str]; 2] = [
    &[
        "three of four calls, by each strategy",
        "ten of 64 calls at once",
        "the moving window believes the caller's clock",
        "another strategy over the same counters fails",
        "reset, which walks all keys, refused",
        "refused outside of the prefix",
    ],
    &["refused without scripts, each strategy", "refused outside of the prefix"],
];
const RATE_LIMITER_FLEXIBLE: [&[&str]; 2] = [
    &["three of four calls", "ten of 64 calls at once", "a denied call counts too", "refused outside of the prefix"],
    &[
        "refused without scripts",
        "RateLimiterRedisNonAtomic: three of four calls",
        "RateLimiterRedisNonAtomic: more than ten of 64 calls at once",
        "refused outside of the prefix",
    ],
];
const REDIS_RATE: [&[&str]; 2] = [
    &["three of four calls", "ten of 64 calls at once", "reset", "refused outside of the prefix"],
    &["refused without scripts", "refused outside of the prefix"],
];
const BUCKET4J: [&[&str]; 2] = [
    &[
        "three of four calls",
        "ten of 64 calls at once",
        "without an expiration a key is kept",
        "the bucket believes the caller's clock",
        "refused outside of the prefix",
    ],
    &["refused without scripts", "refused outside of the prefix"],
];

/// Runs a library's program as a user who may run scripts, and as one who may not: it holds these claims.
async fn holds(prefix: &str, program: impl Fn() -> Command + Clone, [with, without]: [&[&str]; 2]) {
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::RateLimitPolicy, prefix, true).await;
        let scripted = || {
            let mut command = program();
            command.env("SCRIPTS", "yes");
            command
        };
        layer.claims(&engine, scripted, with).await;
        let layer = BoundLayer::start_for(&engine, UseKind::RateLimitPolicy, prefix, false).await;
        layer.claims(&engine, program.clone(), without).await;
    }
}

#[tokio::test]
async fn limits_works_under_a_prefix_with_scripts_alone() {
    let folder = installed("python").await;
    holds(PREFIX, || python(&folder, "tests/clients/python/with_limits.py"), LIMITS).await;
}

#[tokio::test]
async fn rate_limiter_flexible_works_under_a_prefix_and_without_scripts_only_one_call_at_a_time() {
    let folder = installed("node").await;
    holds(PREFIX, || node(&folder, "tests/clients/node/rate-limiter-flexible.mjs"), RATE_LIMITER_FLEXIBLE).await;
}

#[tokio::test]
async fn redis_rate_works_under_a_prefix_that_begins_as_its_keys_do_with_scripts_alone() {
    let folder = installed("go").await;
    holds("rate:web:", || Command::new(folder.join("redis_rate")), REDIS_RATE).await;
}

#[tokio::test]
async fn bucket4j_works_under_a_prefix_with_scripts_alone() {
    let folder = installed("java").await;
    holds(PREFIX, || java(&folder, "tests/clients/java/Bucket4j.java"), BUCKET4J).await;
}

/// What `make demo` shows: the burst is admitted, and the first denial says when to come back.
#[tokio::test]
async fn the_demos_application_is_limited_with_the_binding() {
    let policy = single(PREFIX.trim_end_matches(':'), Algorithm::Gcra { burst: 40 }, 40, 60 * MINUTE);
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::RateLimitPolicy, PREFIX, false).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &limit_library(std::slice::from_ref(&policy))).await.unwrap();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_redoubt"));
        demo.args(["demo", "--binding"]).arg(layer.binding("limits")).args(["limit", "ada", "50"]);
        let said: serde_json::Value = serde_json::from_str(&layer.run(demo).await[0]).unwrap();
        assert_eq!((&said["admitted"], &said["by"]), (&40.into(), &"only".into()), "{}: {said}", engine.name);
        assert!(said["retry"].as_i64().is_some_and(|retry| (1..=90_000).contains(&retry)), "{}: {said}", engine.name);
    }
}
