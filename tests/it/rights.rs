//! What each user may do and what not, for every user that we make, on data nodes and on Sentinels.

use std::fs;
use std::path::Path;

use redis::cmd;
use redoubt::model::{AdministratorAccess, UseKind};
use redoubt::redis::administrator::{self, ADMINISTRATOR};
use redoubt::redis::rights;
use redoubt::redis::use_access::{OF_THE_APPLICATION, differing};
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::users::{self, acl_file, data_users, sentinel_users, use_on_sentinel};
use redoubt::redis::{Class, Connection, server};

use crate::redis_server::answer_to_ping;
use crate::redis_users::{connect, data_node, digests};
use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::eventually;

/// Nobody but Sentinels speaks on it.
const FORGED: &str = "-PUBLISH __sentinel__:hello m";

const OPERATOR_ON_DATA: &[&str] = &[
    "+INFO everything",
    "+PING",
    "+ROLE",
    "+CONFIG GET maxmemory",
    "+CONFIG SET maxmemory 0",
    "+ACL LIST",
    "+ACL SETUSER x",
    "+ACL DELUSER x",
    "+FUNCTION LOAD x",
    "+FUNCTION DELETE x",
    "+FUNCTION LIST",
    "+FUNCTION KILL",
    "+SCRIPT KILL",
    "+FCALL_RO redoubt_digest 0",
    "+REPLICAOF 10.0.0.1 6379",
    "+CLIENT KILL USER x",
    "+CLIENT PAUSE 1 WRITE",
    "-GET key",
    "-SET key value",
    "-FLUSHALL",
    "-KEYS *",
    "-SHUTDOWN",
    "-DEBUG SLEEP 0",
    "-FCALL f 0",
    "-EVAL x 0",
    "-MODULE LOAD x",
    "-MONITOR",
    "-SUBSCRIBE c",
    "-PUBLISH c m",
    FORGED,
];
const AGENT_ON_DATA: &[&str] = &[
    "+FUNCTION DUMP",
    "-FUNCTION LOAD x",
    "+INFO",
    "+PING",
    "+ROLE",
    "+CONFIG SET maxmemory 0",
    "+CONFIG RESETSTAT",
    "+SCRIPT FLUSH",
    "+REPLICAOF NO ONE",
    "+SHUTDOWN",
    "+CLIENT UNPAUSE",
    "+CLIENT KILL TYPE normal",
    "+CLIENT LIST TYPE normal",
    "+ACL USERS",
    "+COMMAND LIST FILTERBY ACLCAT write",
    "+FUNCTION KILL",
    "+SCRIPT KILL",
    "+SELECT 1",
    "+TIME",
    "+SCAN 0 COUNT 100",
    "+PTTL key",
    "+MEMORY USAGE key SAMPLES 5",
    "-MEMORY DOCTOR",
    "-MEMORY PURGE",
    "-KEYS *",
    "-TYPE key",
    "-DUMP key",
    "-PEXPIRE key 1 NX",
    "-PERSIST key",
    "-DEL key",
    "-ACL LIST",
    "-ACL SETUSER x",
    "-GET key",
    "-SET key value",
    "-FLUSHALL",
    "-FUNCTION LOAD x",
    "-EVAL x 0",
    "-DEBUG SLEEP 0",
    "-PUBLISH c m",
    FORGED,
];
const REPLICATION_ON_DATA: &[&str] = &[
    "+PSYNC ? -1",
    "+REPLCONF ack 1",
    "+PING",
    "-GET key",
    "-SET key value",
    "-INFO",
    "-CONFIG GET x",
    "-ACL LIST",
    "-SUBSCRIBE c",
    FORGED,
];
const SENTINEL_ON_DATA: &[&str] = &[
    "+MULTI",
    "+EXEC",
    "+SLAVEOF NO ONE",
    "+CONFIG REWRITE",
    "+CLIENT KILL TYPE normal",
    "+PUBLISH __sentinel__:hello m",
    "+SUBSCRIBE __sentinel__:hello",
    "+SCRIPT KILL",
    "+INFO",
    "+PING",
    "+ROLE",
    "-PUBLISH c m",
    "-SUBSCRIBE c",
    "-PUBLISH __keyevent@0__:expired m",
    "-CONFIG SET maxmemory 0",
    "-GET key",
    "-SET key value",
    "-SHUTDOWN",
];
const DATA: [(&str, &[&str]); 6] = [
    (users::OPERATOR, OPERATOR_ON_DATA),
    (users::AGENT, AGENT_ON_DATA),
    (users::REPLICATION, REPLICATION_ON_DATA),
    (users::SENTINEL, SENTINEL_ON_DATA),
    (users::APPLICATION, OF_THE_APPLICATION),
    // Off: see `default_user.rs`. What it has is for the reading of files.
    (users::DEFAULT, &["+SET key value"]),
];

const OPERATOR_ON_SENTINEL: &[&str] = &[
    "+INFO",
    "+SUBSCRIBE +switch-master",
    "+ACL LIST",
    "+ACL SETUSER x",
    "+SENTINEL MASTERS",
    "+SENTINEL SET m quorum 2",
    "+SENTINEL RESET m",
    "+SENTINEL FAILOVER m",
    "-SUBSCRIBE __sentinel__:hello",
    "-PSUBSCRIBE *",
    "-SENTINEL MONITOR m 127.0.0.1 1 1",
    "-SENTINEL REMOVE m",
    "-SHUTDOWN",
    FORGED,
];
/// An agent says what a failover did in the words of the Sentinel that it runs: see `redoubt::redis::hello`.
const AGENT_ON_SENTINEL: &[&str] = &[
    "+INFO",
    "+SENTINEL MONITOR m 127.0.0.1 1 1",
    "+SENTINEL REMOVE m",
    "+SENTINEL SET m quorum 2",
    "+ACL USERS",
    "+SHUTDOWN",
    "+PUBLISH __sentinel__:hello m",
    "+SUBSCRIBE +failover-state-wait-promotion",
    "-PUBLISH c m",
    "-SUBSCRIBE c",
    "-ACL LIST",
    "-ACL SETUSER x",
    "-SENTINEL RESET m",
];
const SENTINEL_ON_SENTINEL: &[&str] = &[
    "+PUBLISH __sentinel__:hello m",
    "+SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 1 0 *",
    "+PING",
    "+INFO",
    "-PUBLISH c m",
    "-SENTINEL SET m quorum 2",
    "-SENTINEL FAILOVER m",
    "-SENTINEL MONITOR m 127.0.0.1 1 1",
    "-ACL LIST",
    "-SHUTDOWN",
];
const APPLICATION_ON_SENTINEL: &[&str] = &[
    "+SENTINEL GET-MASTER-ADDR-BY-NAME m",
    "+SENTINEL MASTERS",
    "+SENTINEL REPLICAS m",
    "+SENTINEL SENTINELS m",
    "+SUBSCRIBE +switch-master",
    "+PSUBSCRIBE *",
    "+PING",
    "-SENTINEL SET m quorum 2",
    "-SENTINEL FAILOVER m",
    "-SENTINEL RESET m",
    "-SENTINEL REMOVE m",
    "-SENTINEL MONITOR m 127.0.0.1 1 1",
    "-ACL LIST",
    "-CLIENT KILL TYPE normal",
    "-SHUTDOWN",
    "-PUBLISH c m",
    FORGED,
];
const ADMINISTRATOR_ON_SENTINEL: &[&str] = &[
    "+SENTINEL MASTERS",
    "+SENTINEL REPLICAS m",
    "+SENTINEL CKQUORUM m",
    "+CLIENT LIST",
    "+INFO",
    "-SENTINEL SET m quorum 2",
    "-SENTINEL FAILOVER m",
    "-SENTINEL RESET m",
    "-SENTINEL REMOVE m",
    "-SENTINEL MONITOR m 127.0.0.1 1 1",
    "-SENTINEL CONFIG GET *",
    "-ACL LIST",
    "-CLIENT KILL TYPE normal",
    "-SHUTDOWN",
    FORGED,
];
const STORE: &str = "ss.shop.web";
const SENTINELS: [(&str, &[&str]); 7] = [
    (ADMINISTRATOR, ADMINISTRATOR_ON_SENTINEL),
    (users::OPERATOR, OPERATOR_ON_SENTINEL),
    (users::AGENT, AGENT_ON_SENTINEL),
    (users::SENTINEL, SENTINEL_ON_SENTINEL),
    (users::APPLICATION, APPLICATION_ON_SENTINEL),
    (STORE, APPLICATION_ON_SENTINEL),
    (users::DEFAULT, &["-PING", "-INFO", FORGED]),
];

fn owned(expectations: &[&str]) -> Vec<String> {
    expectations.iter().map(|expectation| (*expectation).to_owned()).collect()
}

#[tokio::test]
async fn each_user_of_a_data_node_may_do_what_it_needs_and_no_more() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let named: Vec<&str> = DATA.iter().map(|(user, _)| *user).collect();
        for user in data_users(&digests()).keys() {
            assert!(named.contains(&user.as_str()), "the rights of {user} are not in the table");
        }
        for (user, expectations) in DATA {
            let found = differing(&operator, user, owned(expectations)).await.unwrap();
            assert!(found.is_empty(), "{}: {user} {found:?}", engine.name);
        }
    }
}

/// Diagnostics reads no value, and neither access learns a password or changes what the operator keeps.
#[tokio::test]
async fn an_administrator_may_look_or_work_and_never_undo_what_the_operator_does() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        for access in [AdministratorAccess::Diagnostics, AdministratorAccess::Full] {
            let mut digests = digests();
            digests.administrator = Some((access, digests.agent.clone()));
            let users = data_users(&digests);
            server::acl_set_user(&operator, ADMINISTRATOR, &users[ADMINISTRATOR].rules).await.unwrap();
            let found = differing(&operator, ADMINISTRATOR, owned(&administrator::expectations(access))).await.unwrap();
            assert!(found.is_empty(), "{} {access:?}: {found:?}", engine.name);
            let lines = server::acl_list(&operator).await.unwrap();
            let report = UserForms::default().compare(&operator, "run", &lines, &users).await;
            assert!(report.0.in_place.contains(ADMINISTRATOR), "{} {access:?}: {report:?}", engine.name);
        }
    }
}

/// What the page of a slow server has people type is what an administrator may do.
#[tokio::test]
async fn each_command_of_the_page_about_a_slow_server_is_one_that_an_administrator_may_send() {
    let page = fs::read_to_string("docs/tasks/debug.md").unwrap();
    let commands =
        page.lines().filter_map(|line| line.strip_prefix("redis-cli --user admin ")).filter(|it| !it.starts_with('-'));
    let commands: Vec<String> = commands.map(|command| format!("+{command}")).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let user = users::administrator_on_data(AdministratorAccess::Diagnostics, &digests().agent);
        server::acl_set_user(&operator, ADMINISTRATOR, &user.rules).await.unwrap();
        let found = differing(&operator, ADMINISTRATOR, commands.clone()).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
    }
}

/// With `audit.mode: Repair` an agent may give keys an expiry, and nothing else that changes them.
#[tokio::test]
async fn agents_that_repair_may_give_an_expiry_and_change_nothing_else() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let mut users = data_users(&digests());
        users::let_agents_repair(&mut users);
        server::acl_set_user(&operator, users::AGENT, &users[users::AGENT].rules).await.unwrap();
        let repairing = AGENT_ON_DATA.iter().map(|expectation| expectation.replace("-PEXPIRE", "+PEXPIRE"));
        let further = ["-PEXPIREAT key 1", "-EXPIRE key 1", "-UNLINK key", "-COPY key other"].map(str::to_owned);
        let found = differing(&operator, users::AGENT, repairing.chain(further)).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
        let report =
            UserForms::default().compare(&operator, "run", &server::acl_list(&operator).await.unwrap(), &users).await;
        assert!(report.0.in_place.contains(users::AGENT), "{}: {report:?}", engine.name);
    }
}

/// A Sentinel with all of our users, and one more that may ask for the rights of all.
async fn sentinel(engine: &Engine) -> Process {
    Process::start(engine, true, |_| {
        let mut users = sentinel_users(&digests());
        users.insert(STORE.to_owned(), use_on_sentinel(&digests().agent));
        users.insert(ADMINISTRATOR.to_owned(), users::administrator_on_sentinel(&digests().agent));
        let mut lines: Vec<String> = acl_file(&users).lines().map(str::to_owned).collect();
        lines.push("user tester on nopass allkeys allchannels +@all".to_owned());
        lines
    })
    .await
}

#[tokio::test]
async fn each_user_of_a_sentinel_may_do_what_it_needs_and_no_more() {
    for engine in engines() {
        let sentinel = sentinel(&engine).await;
        let tester = Connection::open(&sentinel.endpoint("tester", "any")).await.unwrap();
        let named: Vec<&str> = SENTINELS.iter().map(|(user, _)| *user).collect();
        for user in sentinel_users(&digests()).keys() {
            assert!(named.contains(&user.as_str()), "the rights of {user} are not in the table");
        }
        for (user, expectations) in SENTINELS {
            let found = differing(&tester, user, owned(expectations)).await.unwrap();
            assert!(found.is_empty(), "{}: {user} {found:?}", engine.name);
        }
    }
}

#[tokio::test]
async fn the_application_speaks_for_no_sentinel_however_it_tries_and_still_hears_the_events_of_keys() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        assert_eq!(
            differing(&operator, users::APPLICATION, owned(OF_THE_APPLICATION)).await.unwrap(),
            [""; 0],
            "{}",
            engine.name
        );
        server::config_set(&operator, "notify-keyspace-events", "KEA").await.unwrap();
        let application = connect(&node, users::APPLICATION).await;
        let script = "return redis.call('PUBLISH', '__sentinel__:hello', 'm')";
        for attempt in [
            cmd("PUBLISH").arg("__sentinel__:hello").arg("m").clone(),
            cmd("publish").arg("__sentinel__:hello").arg("m").clone(),
            cmd("SPUBLISH").arg("__sentinel__:hello").arg("m").clone(),
            cmd("EVAL").arg(script).arg(0).clone(),
            cmd("EVAL").arg("return redis.pcall('PUBLISH', '__keyevent@0__:expired', 'm')").arg(0).clone(),
        ] {
            let refused = application.query::<redis::Value>(&attempt).await.unwrap_err();
            let words = refused.server_text().unwrap_or_default();
            assert!(
                refused.class() == Class::Denied || words.contains("ACL failure") || words.contains("can't publish"),
                "{}: {refused:?}",
                engine.name
            );
        }
        let stock = redis::Client::open(format!(
            "redis://{}:{}@{}:{PORT}",
            users::APPLICATION,
            crate::redis_users::password(users::APPLICATION),
            node.address
        ))
        .unwrap();
        let mut listener = stock.get_async_pubsub().await.unwrap();
        listener.psubscribe("__keyevent@*").await.unwrap();
        application.query::<()>(cmd("SET").arg("key").arg(1)).await.unwrap();
        let heard = futures::StreamExt::next(&mut listener.on_message()).await.unwrap();
        assert_eq!(heard.get_payload::<String>().unwrap(), "key");
        server::acl_set_user(&operator, users::APPLICATION, &["allchannels".to_owned()]).await.unwrap();
        let found = differing(&operator, users::APPLICATION, owned(OF_THE_APPLICATION)).await.unwrap();
        assert!(found.contains(&"may PUBLISH __sentinel__:hello m".to_owned()), "{}: {found:?}", engine.name);
    }
}

#[tokio::test]
async fn a_script_that_does_not_end_is_ended_with_the_rights_of_an_agent() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let library = "#!lua name=endless\nredis.register_function('endless', function() while true do end end)";
        let operator = connect(&node, users::OPERATOR).await;
        operator.query::<String>(cmd("FUNCTION").arg("LOAD").arg(library)).await.unwrap();
        for user in [users::AGENT, users::OPERATOR] {
            let warden = connect(&node, user).await;
            server::config_set(&warden, "busy-reply-threshold", "50").await.unwrap();
            assert!(!server::end_scripts(&warden).await.unwrap(), "{}: nothing runs", engine.name);
            for words in [["EVAL", "while true do end", "0"], ["FCALL", "endless", "0"]] {
                let application = connect(&node, users::APPLICATION).await.with_response_timeout(SOON);
                let endless = async move { application.query::<()>(redis::Cmd::new().arg(&words)).await };
                let running = tokio::spawn(endless);
                eventually("BUSY", SOON, async || {
                    answer_to_ping(&warden).await.is_ok_and(|alive| alive == Some(Class::Busy))
                })
                .await;
                assert!(server::end_scripts(&warden).await.unwrap());
                running.await.unwrap().unwrap_err();
                assert_eq!(answer_to_ping(&warden).await.unwrap(), None, "{}: {user}, {}", engine.name, words[0]);
            }
        }
    }
}

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// The source of what sends commands as one of our users, file by file.
fn senders() -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> =
        ["src/redis", "src/dataplane", "src/agent", "src/observe"].map(Path::new).map(Path::to_owned).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "lua") {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

/// Rights that the operator and the agents have and do not use are somebody else's if their password is.
#[test]
fn every_right_of_the_operator_and_the_agents_is_sent_by_some_code() {
    let sources = senders();
    let mut unused = Vec::new();
    for users in [data_users(&digests()), sentinel_users(&digests())] {
        for user in [users::OPERATOR, users::AGENT] {
            for right in users[user].rules.iter().filter_map(|rule| rule.strip_prefix('+')) {
                // As Rust or as Lua has them: what a function sends, its caller needs the right to.
                let sent = |source: &str, word: &str| {
                    let word = word.to_ascii_uppercase();
                    source.contains(&format!("\"{word}\"")) || source.contains(&format!("'{word}'"))
                };
                // The client library's own word.
                let is_sent = right == "subscribe"
                    || sources.iter().any(|source| right.split('|').all(|word| sent(source, word)));
                if !is_sent {
                    unused.push(format!("{user}: {right}"));
                }
            }
        }
    }
    assert_eq!(unused, [""; 0]);
}

#[test]
fn a_stores_user_may_call_every_function_that_is_about_one_store() {
    let library = fs::read_to_string("src/dataplane/lua/session_functions.lua").unwrap();
    let registered: Vec<(&str, bool)> = library
        .lines()
        .filter_map(|line| line.strip_prefix("register('"))
        .map(|line| (line.split('\'').next().unwrap(), line.contains("'no-writes'")))
        .filter(|(name, _)| !["redoubt_sessions_counters", "redoubt_sessions_policies"].contains(name))
        .collect();
    assert_eq!(registered, rights::of(UseKind::SessionStore).functions);
}
