//! Applications' own clients on each engine, as the user of a session store and with what its binding says: stock session
//! libraries under the prefix with plain commands, and the examples that call the session functions.

use redis::cmd;
use redoubt::dataplane::{cache_library, load, session_library};
use redoubt::model::UseKind;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::model::{OnExceed, SessionPolicy};
use redoubt::redis::users;
use tokio::process::Command;

use crate::support::bound_layer::{
    BoundLayer, PREFIX, STORE_USER, built_example, connect, installed, java, node, python,
};
use crate::support::cache_calls::{HOUR, policy};
use crate::support::engine_process::engines;

const CONNECT_REDIS: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "renewed by a read",
    "destroyed",
    "a late request brings the session back",
    "refused outside of the prefix",
    "all, ids, length and clear refused",
];
const FLASK_SESSION: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "renewed by a read",
    "the name of the key logs in",
    "destroyed",
    "a late request brings the session back",
    "refused outside of the prefix",
];
const DJANGO_REDIS: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "not renewed by a read",
    "renewed by a save",
    "a change is lost to another of the same time",
    "destroyed",
    "a late request is told that the session is gone",
    "a logout between its look and its write is undone",
    "refused outside of the prefix",
];
const SPRING_SESSION: &[&str] = &[
    // RedisSessionRepository
    "created under the prefix",
    "read back",
    "changed, field by field",
    "renewed by a request",
    "moved to another id",
    "destroyed",
    "a late request is told that the session is gone",
    // RedisIndexedSessionRepository
    "created under the prefix",
    "read back",
    "changed, field by field",
    "renewed by a request",
    "moved to another id",
    "found by user",
    "destroyed",
    "a late request keeps the data of a session that is gone",
    "a late request leaves half a session behind",
    "the index keeps a session that is gone",
    "events of expiry refused",
    "refused outside of the prefix",
];

#[tokio::test]
async fn connect_redis_works_under_a_prefix() {
    let folder = installed("node").await;
    for engine in engines() {
        let layer = BoundLayer::start(&engine).await;
        layer.claims(&engine, || node(&folder, "tests/clients/node/connect-redis.mjs"), CONNECT_REDIS).await;
    }
}

#[tokio::test]
async fn flask_session_and_django_redis_work_under_a_prefix() {
    let folder = installed("python").await;
    for engine in engines() {
        let layer = BoundLayer::start(&engine).await;
        layer.claims(&engine, || python(&folder, "tests/clients/python/with_flask_session.py"), FLASK_SESSION).await;
        layer.claims(&engine, || python(&folder, "tests/clients/python/with_django_redis.py"), DJANGO_REDIS).await;
    }
}

#[tokio::test]
async fn spring_session_works_under_a_prefix() {
    let folder = installed("java").await;
    for engine in engines() {
        let layer = BoundLayer::start(&engine).await;
        layer.claims(&engine, || java(&folder, "tests/clients/java/SpringSession.java"), SPRING_SESSION).await;
    }
}

#[tokio::test]
async fn the_examples_log_a_user_in_with_the_binding() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_java = installed("java").await;
    let of_rust = built_example("login", "examples/clients/rust/login.rs").await;
    let policy = SessionPolicy {
        store: "shop/web".to_owned(),
        generation: 1,
        prefix: PREFIX.to_owned(),
        idle_timeout_milliseconds: 1_800_000,
        absolute_lifetime_milliseconds: 3_600_000,
        touch_interval_milliseconds: 60_000,
        max_per_user: None,
        on_exceed: OnExceed::EvictOldest,
    };
    for engine in engines() {
        let layer = BoundLayer::start(&engine).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &session_library(std::slice::from_ref(&policy))).await.unwrap();
        let programs = [
            (python(&of_python, "examples/clients/python/login.py"), "ada ['role', 'admin']"),
            (node(&of_node, "examples/clients/node/login.mjs"), "ada [ 'role', 'admin' ]"),
            (Command::new(of_go.join("login")), "ada [role admin]"),
            (Command::new(&of_rust), "ada [\"role\", \"admin\"]"),
            (java(&of_java, "examples/clients/java/Login.java"), "ada [role, admin]"),
        ];
        for (count, (program, says)) in programs.into_iter().enumerate() {
            assert_eq!(layer.run(program).await, [says], "{}", engine.name);
            // One session more, and the index of the user, whose tag is the same in each language.
            assert_eq!(layer.keys().await.len(), count + 2, "{}", engine.name);
        }
    }
}

/// The names of other stores' keys are their sessions' secrets.
#[tokio::test]
async fn a_session_store_sees_nothing_of_others() {
    for engine in engines() {
        let layer = BoundLayer::start(&engine).await;
        let () = layer.observer.query(cmd("SET").arg("other:session-id").arg("x")).await.unwrap();
        for (question, may) in [
            ("GET web:a", true),
            ("SET web:a x EX 60", true),
            ("HSET web:a field value", true),
            ("PUBLISH web:event x", true),
            ("FCALL redoubt_session_get 1 web:{t}s:a", true),
            ("MULTI", true),
            ("WAIT 1 100", true),
            ("TIME", true),
            ("SELECT 0", true),
            ("GET other:session-id", false),
            ("COPY other:session-id web:a", false),
            ("RENAME web:a other:a", false),
            ("SORT web:a BY other:*", false),
            ("FCALL redoubt_session_get 1 other:{t}s:a", false),
            ("PUBLISH other:event x", false),
            ("SUBSCRIBE __keyevent@0__:expired", false),
            ("PSUBSCRIBE *", false),
            ("SCAN 0 MATCH web:*", false),
            ("RANDOMKEY", false),
            ("KEYS web:*", false),
            ("DBSIZE", false),
            ("PUBSUB CHANNELS", false),
            ("CLIENT TRACKING ON BCAST", false),
            ("CLIENT LIST", false),
            ("CLIENT KILL ID 1", false),
            ("EVAL return 0", false),
            ("SCRIPT FLUSH", false),
            ("FUNCTION LIST", false),
            ("FUNCTION FLUSH", false),
            ("FLUSHDB", false),
            ("FLUSHALL", false),
            ("SWAPDB 0 1", false),
            ("MONITOR", false),
            ("CONFIG GET *", false),
            ("CONFIG SET notify-keyspace-events KEA", false),
            ("ACL WHOAMI", false),
            ("ACL LIST", false),
            ("DEBUG SLEEP 0", false),
            ("SHUTDOWN", false),
            ("REPLICAOF NO ONE", false),
        ] {
            let mut dry_run = cmd("ACL");
            dry_run.arg("DRYRUN").arg(STORE_USER);
            question.split(' ').for_each(|word| {
                dry_run.arg(word);
            });
            let answer: String = layer.observer.query(&dry_run).await.unwrap();
            assert_eq!(answer == "OK", may, "{}: {question}: {answer}", engine.name);
        }
    }
}

/// Each program reads with eight threads what is absent, invalidates a tag, lets its source fail, and keeps a copy that a message and
/// a gap remove.
#[tokio::test]
async fn the_examples_read_through_a_cache_with_the_binding() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_rust = built_example("cache", "examples/clients/rust/cache.rs").await;
    let policy = CachePolicy { stale_ms: HOUR, lease_ms: 5_000, ..policy("web") };
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::CacheNamespace, PREFIX, false).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &cache_library(std::slice::from_ref(&policy))).await.unwrap();
        for program in [
            python(&of_python, "examples/clients/python/cache.py"),
            node(&of_node, "examples/clients/node/cache.mjs"),
            Command::new(of_go.join("cache")),
            Command::new(&of_rust),
        ] {
            let says = ["one computed", "value 2", "stale value 2 value 2", "down", "told", "noticed"];
            assert_eq!(layer.run(program).await, says, "{}", engine.name);
        }
        let keys = layer.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)), "{keys:?}");
    }
}
