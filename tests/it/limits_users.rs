//! The user of a rate limit policy, on real servers: its rights suffice for the functions and end at its prefix.

use redis::Cmd;
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::rights::{self, Grant};
use redoubt::redis::use_access::violations;
use redoubt::redis::{Class, Connection, Error, server};

use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::{call, contents};
use crate::support::limit_calls::{MINUTE, algorithms, limit, policy, server_with};

/// The commands that the functions run for their caller: each is needed by one of them.
const LEAST: [&str; 13] = [
    "+fcall",
    "+fcall_ro",
    "+time",
    "+get",
    "+set",
    "+pttl",
    "+exists",
    "+unlink",
    "+llen",
    "+lindex",
    "+ltrim",
    "+rpush",
    "+pexpire",
];

async fn connect(process: &Process, admin: &Connection, user: &str, commands: &[&str]) -> Connection {
    let rules =
        ["reset", "on", ">right", "~web:*", "&web:*", "+ping"].iter().chain(commands).map(|rule| (*rule).to_owned());
    server::acl_set_user(admin, user, &rules.collect::<Vec<_>>()).await.unwrap();
    Connection::open(&process.endpoint(user, "right")).await.unwrap()
}

/// The rights of a policy's user, as words of `ACL SETUSER`.
fn rights() -> Vec<String> {
    let mut words: Vec<String> = rights::of(UseKind::RateLimitPolicy).commands.split(' ').map(str::to_owned).collect();
    for (function, reads_only) in rights::of(UseKind::RateLimitPolicy).functions {
        words.push(format!("+fcall|{function}"));
        words.extend(reads_only.then(|| format!("+fcall_ro|{function}")));
    }
    words
}

/// Whether a caller's rights were too few. What a function runs is refused with words of each engine.
fn is_denied(error: &Error) -> bool {
    let text = error.server_text().unwrap_or_default();
    error.class() == Class::Denied || text.contains("ACL failure in script") || text.contains("can't run this command")
}

/// Uses every function with every algorithm under a prefix. The first refusal, if there is one.
async fn use_all(connection: &Connection, key: &str) -> Result<(), Error> {
    // The second fills a sliding log, the third finds it full, and the last gives a part back.
    for (function, arguments) in [
        ("limit", vec![]),
        ("limit", vec!["2", "ID", "x"]),
        ("limit", vec!["3"]),
        ("limit_peek", vec!["1"]),
        ("limit_refund", vec!["1"]),
        ("limit_refund", vec!["2", "ID", "x"]),
        ("limit_reset", vec![]),
    ] {
        call(connection, function, &[key], &arguments).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_functions_need_these_commands_and_no_other() {
    for engine in engines() {
        let all = algorithms(3).into_iter().map(|it| limit(&it.letter().to_string(), it, 3, 60 * MINUTE)).collect();
        let (process, admin) = server_with(&engine, &[policy("web", all)], &[]).await;
        let least = connect(&process, &admin, "least", &LEAST).await;
        use_all(&least, "web:{a}").await.unwrap();
        for missing in LEAST {
            let others: Vec<&str> = LEAST.into_iter().filter(|command| *command != missing).collect();
            let user = connect(&process, &admin, "less", &others).await;
            // A subject of its own: nothing of it is used yet.
            let refused = use_all(&user, &format!("web:{{{missing}}}")).await.expect_err(missing);
            assert!(is_denied(&refused), "{}, without {missing}: {refused:?}", engine.name);
        }
        let own = rights();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        use_all(&connect(&process, &admin, "own", &own).await, "web:{c}").await.unwrap();
    }
}

#[tokio::test]
async fn a_policys_user_may_what_is_promised_and_no_more_with_scripts_and_without() {
    for engine in engines() {
        let one = |name: &str| policy(name, vec![limit("only", algorithms(3)[0], 3, MINUTE)]);
        let (process, admin) = server_with(&engine, &[one("web"), one("api")], &[]).await;
        let own = rights();
        let mut words: Vec<&str> = own.iter().map(String::as_str).collect();
        let user = connect(&process, &admin, "web", &words).await;
        let nothing = Functions::new();
        let grant = |scripts| Grant { scripts, ..Grant::plain(UseKind::RateLimitPolicy, "web:", &nothing) };
        let found = violations(&admin, "web", grant(false)).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);

        let before = contents(&admin).await;
        for function in ["limit", "limit_peek", "limit_reset"] {
            let refused = call(&user, function, &["api:{a}"], &[]).await.unwrap_err();
            assert_eq!(refused.class(), Class::Denied, "{}: {function}", engine.name);
        }
        assert!(contents(&admin).await == before);

        words.extend(rights::SCRIPTS.split(' '));
        let user = connect(&process, &admin, "scripts", &words).await;
        let found = violations(&admin, "scripts", grant(true)).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
        let mut foreign = Cmd::new();
        foreign.arg(&["EVAL", "return redis.call('GET', 'api:x')", "0"]);
        assert!(user.query::<()>(&foreign).await.is_err(), "a script reaches another prefix");
    }
}
