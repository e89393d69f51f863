//! What a call of the limits does inside the server: which commands, how many, and on keys of which slot.

use std::collections::BTreeMap;

use redis::{Cmd, cmd};
use redoubt::dataplane::limit_library;
use redoubt::model::limit_policy::{Algorithm, LONGEST_MILLISECONDS, LimitPolicy};
use redoubt::redis::Connection;

use crate::support::cluster::{cluster, slot_of};
use crate::support::engine_process::engines;
use crate::support::function_calls::{contents, function_call, number};
use crate::support::limit_calls::{
    Answer, admit, algorithms, decide, limit, one_of_each, peek, policy, server_with, single,
};

/// So that no window of the clock ends within a test.
const YEAR: u64 = LONGEST_MILLISECONDS;

/// A policy of one limit for each algorithm, each named by its letter.
fn all_in_one(quota: u64) -> LimitPolicy {
    policy("web", algorithms(quota).map(|it| limit(&it.letter().to_string(), it, quota, YEAR)).to_vec())
}

/// What a call answers, and how often the server carried out each command for it.
async fn commands_of(connection: &Connection, call: &Cmd) -> (redis::Value, BTreeMap<String, u64>) {
    connection.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    let reply = connection.query(call).await.unwrap();
    let text: String = connection.query(cmd("INFO").arg("commandstats")).await.unwrap();
    let line = |line: &str| {
        let (name, counts) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_inside = !name.starts_with("config") && !name.starts_with("fcall");
        is_inside.then(|| (name.to_owned(), counts.split(',').next().unwrap().parse().unwrap()))
    };
    (reply, text.lines().filter_map(line).collect())
}

#[tokio::test]
async fn the_clock_is_read_once_in_each_call_that_decides() {
    for engine in engines() {
        let mut policies = one_of_each(3, YEAR);
        policies.push(all_in_one(3));
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for policy in &policies {
            let declared = policy.declared();
            let (key, last) = (format!("{}{{a}}", declared.prefix), declared.limits.last().unwrap().name.as_str());
            for (function, arguments, readings) in [
                ("limit", vec![], 1),
                ("limit", vec!["1", last], 1),
                ("limit", vec!["1", "ID", "x"], 1),
                ("limit", vec!["1", "ID", "x"], 1),
                ("limit", vec!["9"], 1),
                ("limit", vec!["0"], 1),
                ("limit_peek", vec![], 1),
                ("limit_peek", vec!["1", last], 1),
                ("limit_refund", vec!["1", "ID", "x"], 1),
                ("limit_refund", vec!["1", "ID", "x"], 1),
                ("limit_refund", vec!["1"], 1),
                ("limit_refund", vec!["1", last], 1),
                ("limit_refund", vec!["0"], 1),
                ("limit_reset", vec![], 0),
            ] {
                let (_, commands) = commands_of(&connection, &function_call(function, &[&key], &arguments)).await;
                let found = commands.get("time").copied().unwrap_or_default();
                assert_eq!(found, readings, "{} {function} {key} {arguments:?}: {commands:?}", engine.name);
            }
        }
    }
}

/// A log of 10,000 entries, of which half are over: what is over goes in one command, and where it ends is found by bisection.
#[tokio::test]
async fn a_long_log_is_trimmed_in_few_commands() {
    let log = Algorithm::SlidingLog { max_entries: 10_000 };
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[single("l", log, 10_000, 3_600_000)], &[]).await;
        let (seconds, micros): (i64, i64) = connection.query(&cmd("TIME")).await.unwrap();
        let now = seconds * 1_000_000 + micros;
        for over in [5_000, 1, 9_999, 10_000] {
            let key = format!("l:{{{over}}}");
            let state = format!("{key}l:only");
            let at = |number: i64| if number < over { now - 7_200_000_000 + number } else { now - 10_000 + number };
            let entries: Vec<i64> = (0..10_000).map(at).collect();
            connection.query::<()>(cmd("RPUSH").arg(&state).arg(entries)).await.unwrap();
            let (reply, commands) = commands_of(&connection, &function_call("limit", &[&key], &[])).await;
            let left = 10_000 - over + 1;
            assert_eq!(Answer::read(reply).verdict(), (1, 10_000 - left), "{} {over}", engine.name);
            let held: i64 = connection.query(cmd("LLEN").arg(&state)).await.unwrap();
            assert_eq!(held, left, "{} {over}", engine.name);
            // The newest, the oldest, and 14 halvings of 10,000.
            assert!(commands["lindex"] <= 16, "{} {over}: {commands:?}", engine.name);
            for name in ["time", "llen", "ltrim", "rpush", "pexpire"] {
                assert_eq!(commands[name], 1, "{} {over}: {commands:?}", engine.name);
            }
            assert_eq!(commands.len(), 6, "{} {over}: {commands:?}", engine.name);
        }
        // One that is full denies without a search.
        let key = "l:{full}";
        assert_eq!(admit(&connection, key, &["10000"]).await.verdict(), (1, 0));
        let (reply, commands) = commands_of(&connection, &function_call("limit", &[key], &[])).await;
        assert_eq!(Answer::read(reply).verdict(), (0, 0), "{}", engine.name);
        let all: u64 = commands.values().sum();
        assert!(all <= 5, "{}: {commands:?}", engine.name);
    }
}

#[tokio::test]
async fn in_a_cluster_all_that_a_call_writes_is_in_the_slot_of_its_key() {
    for engine in engines() {
        let nodes = cluster(&engine, &limit_library(&[all_in_one(9)])).await;
        let mut used = [0; 2];
        for first in 0..8 {
            // The first brace begins the tag, and the first one behind it that closes ends it.
            for subject in [
                format!("{first}"),
                format!("{{{first}}}"),
                format!("{first}}}b"),
                format!("{first}{{b"),
                format!("{first}}}{{b}}"),
            ] {
                let key = format!("web:{{{subject}}}");
                let slot = slot_of(&nodes[0].1, &key).await;
                let owner = usize::from(slot > 8_191);
                used[owner] += 1;
                let connection = &nodes[owner].1;
                assert_eq!(admit(connection, &key, &["2", "ID", "order:7"]).await.verdict(), (1, 7), "{}", engine.name);
                assert_eq!(peek(connection, &key, &[]).await.verdict(), (1, 6));
                let states = contents(connection).await;
                assert_eq!(states.len(), 8 + 1, "{} {key}: the limits and the ID", engine.name);
                for (state, _) in &states {
                    assert_eq!(slot_of(connection, state).await, slot, "{} {key}: {state}", engine.name);
                }
                assert_eq!(decide(connection, "limit_refund", &key, &["1", "ID", "order:7"]).await.verdict(), (1, 8));
                assert_eq!(number(connection, "limit_reset", &[&key], &[]).await, 8, "{} {key}", engine.name);
                assert_eq!(contents(connection).await, [], "{} {key}", engine.name);
                let refused = nodes[1 - owner].1.query::<redis::Value>(&function_call("limit", &[&key], &[])).await;
                let refused = refused.unwrap_err();
                assert!(refused.server_text().is_some_and(|text| text.starts_with("MOVED")), "{refused:?}");
            }
        }
        assert!(used[0] > 0 && used[1] > 0, "{used:?}");
    }
}
