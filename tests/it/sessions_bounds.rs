//! What a call of a session function reads at most, whatever plain commands put under its keys.

use std::collections::BTreeMap;

use redis::{Cmd, cmd};
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::redis::Connection;

use crate::support::engine_process::engines;
use crate::support::session_calls::{list, number, policy, read, refusal, server_with};

/// Entries of the index that is too large. A million take a debug build's client a minute to write.
const MANY: usize = 200_000;
/// Commands that a call may run: those of 1000 entries, nine each, and some.
const MOST_COMMANDS: u64 = 9_100;
const INDEX: &str = "web:{t}u:bob";

/// Fills an index by plain commands, as a store's user may.
async fn fill(connection: &Connection, index: &str) {
    for first in (0..MANY).step_by(10_000) {
        let mut add = cmd("ZADD");
        add.arg(index);
        for number in first..first + 10_000 {
            add.arg(9_000_000_000_000_000_u64).arg(format!("id{number}"));
        }
        connection.query::<()>(&add).await.unwrap();
    }
}

/// Commands that the server ran since its counts began.
async fn commands(connection: &Connection) -> u64 {
    let text: String = connection.query(cmd("INFO").arg("commandstats")).await.unwrap();
    let calls = |line: &str| line.split_once(":calls=")?.1.split(',').next()?.parse::<u64>().ok();
    text.lines().filter_map(calls).sum()
}

/// Whether what is run keeps to the bound.
async fn bounded<T>(connection: &Connection, call: impl Future<Output = T>) -> T {
    connection.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    let answer = call.await;
    let ran = commands(connection).await;
    assert!(ran < MOST_COMMANDS, "{ran} commands");
    answer
}

fn capped(name: &str, on_exceed: OnExceed) -> SessionPolicy {
    SessionPolicy { max_per_user: Some(2), on_exceed, ..policy(name) }
}

#[tokio::test]
async fn an_index_of_any_size_holds_the_server_for_no_longer_than_a_thousand_entries_do() {
    for engine in engines() {
        let stores = [policy("web"), capped("two", OnExceed::EvictOldest), capped("no", OnExceed::Reject)];
        let (_process, connection) = server_with(&engine, &stores, &[]).await;
        for index in [INDEX, "two:{t}u:bob", "no:{t}u:bob"] {
            fill(&connection, index).await;
        }
        let on = &connection;
        assert_eq!(bounded(on, refusal(on, "session_list", &[INDEX], &[])).await, "TOOLARGE", "{}", engine.name);
        assert_eq!(bounded(on, refusal(on, "session_revoke_all", &[INDEX], &[])).await, "TOOLARGE");
        bounded(on, number(on, "session_create", &["web:{t}s:a"], &["bob"])).await;
        bounded(on, number(on, "session_create", &["two:{t}s:a"], &["bob"])).await;
        assert_eq!(bounded(on, refusal(on, "session_create", &["no:{t}s:a"], &["bob"])).await, "LIMIT");
        let left: usize = connection.query(cmd("ZCARD").arg(INDEX)).await.unwrap();
        assert_eq!(left, MANY - 1_000 + 1);
        // Entries whose time is over are taken out a thousand at a time, too.
        let mut over = cmd("ZADD");
        over.arg("web:{t}u:eve");
        (0..5_000).for_each(|number| _ = over.arg(1).arg(number));
        connection.query::<()>(&over).await.unwrap();
        bounded(on, number(on, "session_create", &["web:{t}s:b"], &["eve"])).await;
        assert_eq!(connection.query::<usize>(cmd("ZCARD").arg("web:{t}u:eve")).await.unwrap(), 4_001);
    }
}

#[tokio::test]
async fn a_user_with_more_sessions_than_one_call_reads_is_logged_out_everywhere_by_calls_in_a_row() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let create = |number: usize| -> Cmd {
            let mut create = cmd("FCALL");
            create.arg("redoubt_session_create").arg(1).arg(format!("web:{{t}}s:{number}")).arg("bob").clone()
        };
        let creates: Vec<Cmd> = (0..2_500).map(create).collect();
        assert!(connection.query_all(&creates).await.unwrap().iter().all(Result::is_ok));
        for left in [1_500, 500] {
            assert_eq!(refusal(&connection, "session_revoke_all", &[INDEX], &[]).await, "TOOLARGE", "{}", engine.name);
            assert_eq!(connection.query::<usize>(cmd("ZCARD").arg(INDEX)).await.unwrap(), left);
        }
        assert_eq!(list(&connection, INDEX).await.len(), 500);
        assert_eq!(number(&connection, "session_revoke_all", &[INDEX], &["499"]).await, 500);
        assert_eq!(connection.query::<usize>(&cmd("DBSIZE")).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_cap_is_kept_where_it_is_larger_than_what_is_read_otherwise() {
    for engine in engines() {
        let store = SessionPolicy { max_per_user: Some(1_500), ..policy("web") };
        let (_process, connection) = server_with(&engine, &[store], &[]).await;
        for id in 0..1_501 {
            number(&connection, "session_create", &[&format!("web:{{t}}s:{id}")], &["bob"]).await;
        }
        assert_eq!(list(&connection, INDEX).await.len(), 1_500, "{}", engine.name);
        assert_eq!(read(&connection, "session_get", "web:{t}s:0").await, None);
    }
}

/// Three times as much as it holds would go through the server to read a session: the server's answer, Lua's, and the caller's.
#[tokio::test]
async fn what_plain_commands_made_of_a_session_is_not_read_into_memory() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let big = "x".repeat(5 << 20);
        for (key, plain) in [("web:{t}s:big", 1), ("web:{t}s:many", 40_000)] {
            number(&connection, "session_create", &[key], &["bob"]).await;
            let mut set = cmd("HSET");
            set.arg(key);
            for field in 0..plain {
                set.arg(format!("f{field}")).arg(if plain == 1 { big.as_str() } else { "" });
            }
            connection.query::<()>(&set).await.unwrap();
            for (function, arguments) in [
                ("session_get", vec![]),
                ("session_get_ro", vec!["f0", "f1"]),
                ("session_set", vec!["", "1", "f0", "x", "f1"]),
            ] {
                let found = refusal(&connection, function, &[key], &arguments).await;
                assert_eq!(found, "TOOLARGE", "{}: {function} {key}", engine.name);
            }
            // It can be seen and ended all the same.
            assert!(number(&connection, "session_touch", &[key], &[]).await > 0);
            assert_eq!(number(&connection, "session_revoke", &[key], &[]).await, 1);
        }
        let members: BTreeMap<String, u64> = (0..3).map(|number| (format!("{number}{big}"), u64::MAX >> 12)).collect();
        let mut add = cmd("ZADD");
        add.arg(INDEX);
        for (member, score) in &members {
            add.arg(score).arg(member);
        }
        connection.query::<()>(&add).await.unwrap();
        assert_eq!(refusal(&connection, "session_list", &[INDEX], &[]).await, "TOOLARGE", "{}", engine.name);
    }
}
