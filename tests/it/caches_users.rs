//! The user of a cache, on real servers: its rights suffice for the functions and end at its prefix and channel.

use redis::{Cmd, cmd};
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::rights::Grant;
use redoubt::redis::use_access::violations;
use redoubt::redis::users::use_on_data;
use redoubt::redis::{Class, Connection, Error, server};

use crate::support::cache_calls::{get, policy, server_with};
use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::{call, contents};

/// The commands that the functions run for their caller: each is needed by one of them.
const LEAST: [&str; 15] = [
    "+fcall",
    "+fcall_ro",
    "+time",
    "+get",
    "+mget",
    "+set",
    "+getex",
    "+unlink",
    "+pttl",
    "+publish",
    "+hget",
    "+hmget",
    "+hset",
    "+hgetall",
    "+pexpire",
];
const CHANNEL: &str = "cache:invalidate:web:";
/// Of no password: the test sets its own.
const DIGEST: &str = "0";

fn plain(functions: &Functions) -> Grant<'_> {
    Grant { channel: Some(CHANNEL), ..Grant::plain(UseKind::CacheNamespace, "web:", functions) }
}

async fn connect(process: &Process, admin: &Connection, user: &str, rules: &[&str]) -> Connection {
    let rules = ["reset", "on", ">right"].iter().chain(rules).map(|rule| (*rule).to_owned());
    server::acl_set_user(admin, user, &rules.collect::<Vec<_>>()).await.unwrap();
    Connection::open(&process.endpoint(user, "right")).await.unwrap()
}

/// A user with these commands and the keys and the channel of `web:`.
async fn with_commands(process: &Process, admin: &Connection, user: &str, commands: &[&str]) -> Connection {
    let scope = ["~web:*", "&web:*", "&cache:invalidate:web:", "+ping"];
    connect(process, admin, user, &scope.iter().chain(commands).copied().collect::<Vec<_>>()).await
}

/// A user with the very rules of a grant.
async fn granted(process: &Process, admin: &Connection, user: &str, grant: Grant<'_>) -> Connection {
    let rules = use_on_data(grant, DIGEST).rules;
    // The password is the test's own.
    let rules: Vec<&str> =
        rules.iter().map(String::as_str).filter(|rule| !rule.starts_with('#') && *rule != "reset").collect();
    connect(process, admin, user, &rules).await
}

/// Whether a caller's rights were too few. What a function runs is refused with words of each engine.
fn is_denied(error: &Error) -> bool {
    let text = error.server_text().unwrap_or_default();
    error.class() == Class::Denied
        || ["ACL failure in script", "can't run this command", "can't publish"].iter().any(|words| text.contains(words))
}

/// Uses every function on an entry of its own. The first refusal, if there is one.
async fn use_all(connection: &Connection, name: &str) -> Result<(), Error> {
    let key = format!("web:{{g}}{name}");
    let answer = call(connection, "cache_get", &[&key], &[]).await?;
    let (_, _, token, _): (i64, Option<String>, String, i64) = redis::from_redis_value(answer).unwrap();
    for (function, key, arguments) in [
        ("cache_set", key.as_str(), vec![token.as_str(), "value", "", "a", "b"]),
        ("cache_get", &key, vec![]),
        ("cache_check", &key, vec![]),
        ("cache_get_ro", &key, vec![]),
        ("cache_set_if_version", &key, vec!["7", "value"]),
        ("cache_negative", &key, vec![""]),
        ("cache_fail", &key, vec![token.as_str()]),
        ("cache_invalidate", &key, vec![]),
        ("cache_invalidate_tag", "web:{g}", vec!["a"]),
        ("cache_invalidate_prefix", "web:{@jobs}", vec!["web:{g}x"]),
    ] {
        call(connection, function, &[key], &arguments).await?;
    }
    call(connection, "cache_stats", &["web:{g}"], &[]).await?;
    call(connection, "caches_position", &[], &["web:"]).await?;
    call(connection, "caches_digest", &[], &[]).await.map(drop)
}

#[tokio::test]
async fn the_functions_need_these_commands_and_no_other() {
    for engine in engines() {
        let (process, admin) = server_with(&engine, &[policy("web")], &[]).await;
        let least = with_commands(&process, &admin, "least", &LEAST).await;
        use_all(&least, "least").await.unwrap();
        for missing in LEAST {
            let others: Vec<&str> = LEAST.into_iter().filter(|command| *command != missing).collect();
            let user = with_commands(&process, &admin, "less", &others).await;
            let refused = use_all(&user, missing).await.expect_err(missing);
            assert!(is_denied(&refused), "{}, without {missing}: {refused:?}", engine.name);
        }
        let nothing = Functions::new();
        use_all(&granted(&process, &admin, "own", plain(&nothing)).await, "own").await.unwrap();
    }
}

#[tokio::test]
async fn a_caches_user_may_what_is_promised_and_no_more_with_tracking_and_without() {
    for engine in engines() {
        let (process, admin) = server_with(&engine, &[policy("web"), policy("api")], &[]).await;
        let nothing = Functions::new();
        let user = granted(&process, &admin, "web", plain(&nothing)).await;
        let found = violations(&admin, "web", plain(&nothing)).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);

        get(&admin, "api:{a}b").await;
        let before = contents(&admin).await;
        for (function, key) in [
            ("cache_get", "api:{a}b"),
            ("cache_check", "api:{a}b"),
            ("cache_get_ro", "api:{a}b"),
            ("cache_invalidate", "api:{a}b"),
            ("cache_invalidate_tag", "api:{a}"),
            ("cache_invalidate_prefix", "api:{@jobs}"),
        ] {
            let refused = call(&user, function, &[key], &[]).await.unwrap_err();
            assert_eq!(refused.class(), Class::Denied, "{}: {function}", engine.name);
        }
        for refused in
            [&["PUBLISH", "cache:invalidate:api:", "m"][..], &["FLUSHDB"], &["SCAN", "0"], &["KEYS", "web:*"]]
        {
            let mut command = Cmd::new();
            command.arg(refused);
            assert_eq!(user.query::<()>(&command).await.unwrap_err().class(), Class::Denied, "{refused:?}");
        }
        assert!(contents(&admin).await == before);

        let tracking = Grant { tracking: true, ..plain(&nothing) };
        let user = granted(&process, &admin, "tracks", tracking).await;
        let found = violations(&admin, "tracks", tracking).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
        user.query::<()>(cmd("CLIENT").arg("TRACKING").arg("off")).await.unwrap();
        let mistaken = violations(&admin, "tracks", plain(&nothing)).await.unwrap();
        assert_eq!(mistaken, ["may CLIENT TRACKING on BCAST"], "{}", engine.name);
    }
}
