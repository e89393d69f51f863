//! What the limits' functions refuse, and what they still do on servers that refuse writes.

use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::limit_policy::{Algorithm, Limit};
use redoubt::redis::{Class, Connection, server};

use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::{call, contents, number, refusal};
use crate::support::layer::SOON;
use crate::support::limit_calls::{
    MINUTE, admit, algorithms, counters, decide, limit, one_of_each, peek, policy, server_with, single,
};

const GCRA: Algorithm = Algorithm::Gcra { burst: 3 };
const LOG: Algorithm = Algorithm::SlidingLog { max_entries: 100 };
const KEY: &str = "web:{a}";

/// A refused call, and the code that says why.
type Refused<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>, &'a str);

/// Each is refused with its code, changes nothing, and does not count.
async fn all_are_refused(connection: &Connection, cases: &[Refused<'_>]) {
    let before = contents(connection).await;
    let counted = counters(connection, "shop/web", "now").await;
    for (function, keys, arguments, code) in cases {
        let found = refusal(connection, function, keys, arguments).await;
        assert_eq!(&found, code, "{}: {function} {keys:.60?} {arguments:.60?}", connection.name());
        assert!(contents(connection).await == before, "{}: {function} {keys:?} wrote", connection.name());
    }
    assert_eq!(counters(connection, "shop/web", "now").await, counted, "what was refused does not count");
}

/// Three limits of one policy: a number, a packed state and a list.
fn three_limits() -> Vec<Limit> {
    vec![
        limit("now", GCRA, 3, 60 * MINUTE),
        limit("count", Algorithm::SlidingCounter, 9, MINUTE),
        limit("hour", LOG, 9, MINUTE),
    ]
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_changes_nothing() {
    let of_length = |length: usize| format!("web:{{{}}}", "s".repeat(length - 6));
    let (longest, too_long) = (of_length(1_024), of_length(1_025));
    let (long_id, longest_id) = ("i".repeat(65), "i".repeat(64));
    let long_prefix = format!("{}:{{a}}", "p".repeat(64));
    let cases: Vec<Refused> = vec![
        ("limit", vec![], vec![], "BADARG"),
        ("limit", vec![KEY, "web:{b}"], vec![], "BADARG"),
        ("limit", vec!["web:a"], vec![], "BADARG"),
        ("limit", vec!["web:{}"], vec![], "BADARG"),
        ("limit", vec!["web:{}}"], vec![], "BADARG"),
        ("limit", vec!["web:{a}x"], vec![], "BADARG"),
        ("limit", vec!["web:{a}\n"], vec![], "BADARG"),
        ("limit", vec!["web:{a"], vec![], "BADARG"),
        ("limit", vec!["web:}"], vec![], "BADARG"),
        ("limit", vec![""], vec![], "BADARG"),
        ("limit", vec![&too_long], vec![], "BADARG"),
        ("limit", vec!["nix:{a}"], vec![], "NOPOLICY"),
        ("limit", vec!["web{a}"], vec![], "NOPOLICY"),
        ("limit", vec!["web:x:{a}"], vec![], "NOPOLICY"),
        ("limit", vec!["{a}"], vec![], "NOPOLICY"),
        ("limit", vec!["x\nweb:{a}"], vec![], "NOPOLICY"),
        ("limit", vec![&long_prefix], vec![], "NOPOLICY"),
        ("limit", vec![KEY], vec!["-1"], "BADARG"),
        ("limit", vec![KEY], vec!["1.5"], "BADARG"),
        ("limit", vec![KEY], vec!["1e3"], "BADARG"),
        ("limit", vec![KEY], vec!["0x10"], "BADARG"),
        ("limit", vec![KEY], vec!["nan"], "BADARG"),
        ("limit", vec![KEY], vec!["inf"], "BADARG"),
        ("limit", vec![KEY], vec![""], "BADARG"),
        ("limit", vec![KEY], vec![" 1"], "BADARG"),
        ("limit", vec![KEY], vec!["1\n"], "BADARG"),
        ("limit", vec![KEY], vec!["1000000000000"], "BADARG"),
        ("limit", vec![KEY], vec!["now"], "BADARG"),
        ("limit", vec![KEY], vec!["1", "NOW"], "NOLIMIT"),
        ("limit", vec![KEY], vec!["1", "nix"], "NOLIMIT"),
        ("limit", vec![KEY], vec!["1", "now", "id"], "NOLIMIT"),
        ("limit", vec![KEY], vec!["1", "now", "now"], "BADARG"),
        ("limit", vec![KEY], vec!["1", "ID"], "BADARG"),
        ("limit", vec![KEY], vec!["1", "ID", ""], "BADARG"),
        ("limit", vec![KEY], vec!["1", "ID", &long_id], "BADARG"),
        ("limit", vec![KEY], vec!["1", "ID", "x}g:now"], "BADARG"),
        ("limit", vec![KEY], vec!["1", "now", "ID", "x"], "NOLIMIT"),
        ("limit_peek", vec![KEY], vec!["-1"], "BADARG"),
        ("limit_peek", vec![KEY], vec!["1", "ID", "x"], "NOLIMIT"),
        ("limit_peek", vec!["nix:{a}"], vec![], "NOPOLICY"),
        ("limit_refund", vec![KEY], vec![], "BADARG"),
        ("limit_refund", vec![KEY], vec!["-1"], "BADARG"),
        ("limit_refund", vec![KEY], vec!["1", "nix"], "NOLIMIT"),
        ("limit_refund", vec!["nix:{a}"], vec!["1"], "NOPOLICY"),
        ("limit_reset", vec![KEY], vec!["1"], "NOLIMIT"),
        ("limit_reset", vec![KEY], vec!["now", "now"], "BADARG"),
        ("limit_reset", vec!["web:a"], vec![], "BADARG"),
        ("limits_policy", vec![], vec![], "BADARG"),
        ("limits_policy", vec![], vec!["web:", "api:"], "BADARG"),
    ];
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web", three_limits())], &[]).await;
        admit(&connection, KEY, &[]).await;
        all_are_refused(&connection, &cases).await;
        assert_eq!(admit(&connection, &longest, &["000000000003", "now"]).await.verdict(), (1, 0));
        assert_eq!(admit(&connection, &longest, &["999999999999", "hour"]).await.retry, -1);
        assert_eq!(admit(&connection, KEY, &["1", "ID", &longest_id]).await.allowed, 1);
    }
}

/// Plain commands of a client may leave anything under the keys of limits.
#[tokio::test]
async fn what_a_client_left_under_the_key_of_a_limit_is_refused_and_stays_as_it_is() {
    let cases: Vec<Refused> = vec![
        ("limit", vec!["web:{text}"], vec![], "WRONGTYPE"),
        ("limit", vec!["web:{text}"], vec!["1", "now"], "WRONGTYPE"),
        ("limit", vec!["web:{nan}"], vec!["1", "now"], "WRONGTYPE"),
        ("limit", vec!["web:{list}"], vec!["1", "now"], "WRONGTYPE"),
        ("limit", vec!["web:{list}"], vec!["1", "count"], "WRONGTYPE"),
        ("limit", vec!["web:{words}"], vec!["1", "hour"], "WRONGTYPE"),
        ("limit", vec!["web:{string}"], vec!["1", "hour"], "WRONGTYPE"),
        ("limit", vec!["web:{hash}"], vec!["1", "hour"], "WRONGTYPE"),
        // The newest and the oldest entry are numbers, and what is between them is not.
        ("limit", vec!["web:{middle}"], vec!["1", "hour"], "WRONGTYPE"),
        ("limit", vec!["web:{fraction}"], vec!["1", "hour"], "WRONGTYPE"),
        ("limit", vec!["web:{long}"], vec!["1", "hour"], "WRONGTYPE"),
        ("limit", vec!["web:{empty}"], vec!["1", "now"], "WRONGTYPE"),
        ("limit", vec!["web:{short}"], vec!["1", "count"], "WRONGTYPE"),
        ("limit", vec!["web:{many}"], vec!["1", "hour"], "TOOLARGE"),
        ("limit", vec!["web:{many}"], vec![], "TOOLARGE"),
        ("limit_peek", vec!["web:{many}"], vec!["0", "hour"], "TOOLARGE"),
        ("limit_refund", vec!["web:{many}"], vec!["1", "hour"], "TOOLARGE"),
        ("limit_refund", vec!["web:{middle}"], vec!["1", "hour"], "WRONGTYPE"),
        // The last of the limits is what it cannot read: the ones before are not written either.
        ("limit", vec!["web:{string}"], vec!["1", "now", "hour"], "WRONGTYPE"),
        ("limit_refund", vec!["web:{string}"], vec!["1", "now", "hour"], "WRONGTYPE"),
        ("limit_refund", vec!["web:{string}"], vec!["1", "ID", "x"], "WRONGTYPE"),
        ("limit_peek", vec!["web:{text}"], vec![], "WRONGTYPE"),
    ];
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web", three_limits())], &[]).await;
        for words in [
            "SET web:{text}g:now text",
            "SET web:{nan}g:now nan",
            "RPUSH web:{list}g:now 1",
            "SET web:{list}c60000:count 1",
            "RPUSH web:{words}l:hour words",
            "SET web:{string}l:hour 1",
            "SET web:{string}g:now 9",
            "SET web:{string}i:x 1",
            "HSET web:{hash}l:hour 1 1",
            "RPUSH web:{middle}l:hour 1 words words words 9999999999999999",
            "RPUSH web:{fraction}l:hour 1.5",
            "RPUSH web:{long}l:hour 99999999999999999",
            "SET web:{empty}g:now ",
            "SET web:{short}c60000:count 12345678901",
        ] {
            let mut command = redis::Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            connection.query::<()>(&command).await.unwrap();
        }
        let mut many = cmd("RPUSH");
        many.arg("web:{many}l:hour").arg(vec!["1"; 10_001]);
        connection.query::<()>(&many).await.unwrap();
        all_are_refused(&connection, &cases).await;
    }
}

/// A plain command of a client may leave anything: no call of a function makes a key that never ends of it.
#[tokio::test]
async fn what_plain_commands_left_without_an_end_gets_one_with_the_next_call() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &one_of_each(3, MINUTE), &[]).await;
        for algorithm in algorithms(3) {
            let key = format!("{}:{{a}}", algorithm.letter());
            admit(&connection, &key, &[]).await;
            let states: Vec<String> = connection.query(cmd("KEYS").arg("*")).await.unwrap();
            let [state] = &states[..] else { panic!("{states:?}") };
            connection.query::<()>(cmd("PERSIST").arg(state)).await.unwrap();
            admit(&connection, &key, &[]).await;
            let left: i64 = connection.query(cmd("PTTL").arg(state)).await.unwrap();
            assert!((1..=120_000).contains(&left), "{} {state}: {left}", engine.name);
            number(&connection, "limit_reset", &[&key], &[]).await;
        }
    }
}

/// Whatever numbers a plain command of a client left: the next call is told to wait for a window at most, and is admitted then.
#[tokio::test]
async fn a_log_that_a_client_wrote_locks_no_caller_out_for_longer_than_a_window() {
    const WINDOW: i64 = 60_000;
    for engine in engines() {
        let limits = vec![limit("hour", LOG, 9, MINUTE)];
        let (_process, connection) = server_with(&engine, &[policy("web", limits)], &[]).await;
        let (seconds, micros): (i64, i64) = connection.query(&cmd("TIME")).await.unwrap();
        let now = seconds * 1_000_000 + micros;
        let shuffled: Vec<i64> = (0..5_000).map(|number| now - number * 7_919 % 90_000_000).collect();
        let logs = [
            ("future", vec![9_999_999_999_999_999; 9]),
            ("longest", vec![now; 10_000]),
            ("future_longest", vec![now + 3_600_000_000; 10_000]),
            ("falling", (0..20).map(|number| now - number * 1_000_000).collect()),
            ("shuffled", shuffled),
            ("old", vec![1; 10_000]),
        ];
        for (subject, entries) in logs {
            let key = format!("web:{{{subject}}}");
            let state = format!("{key}l:hour");
            connection.query::<()>(cmd("RPUSH").arg(&state).arg(entries)).await.unwrap();
            let told = admit(&connection, &key, &[]).await;
            assert!((0..=WINDOW).contains(&told.retry), "{} {subject}: {told:?}", engine.name);
            assert!(told.remaining < 9 && told.reset <= WINDOW, "{} {subject}: {told:?}", engine.name);
            let left: i64 = connection.query(cmd("PTTL").arg(&state)).await.unwrap();
            let held: usize = connection.query(cmd("LLEN").arg(&state)).await.unwrap();
            // A log of past entries that denies is left as it is: it has the end that it had.
            assert!(left <= WINDOW && held <= 10_000, "{} {subject}: {left} ms, {held} entries", engine.name);
        }
    }
}

async fn answers_without_deciding(connection: &Connection, refused: Class) {
    assert_eq!(peek(connection, KEY, &[]).await.verdict(), (1, 1));
    for function in ["limits_counters", "limits_digest"] {
        call(connection, function, &[], &[]).await.unwrap();
    }
    let error = call(connection, "limit", &[KEY], &[]).await.unwrap_err();
    assert_eq!(error.class(), refused, "{error:?}");
}

#[tokio::test]
async fn limits_are_looked_at_on_servers_that_refuse_writes() {
    for engine in engines() {
        let limits = vec![limit("now", GCRA, 3, 60 * MINUTE)];
        let (first, primary) = server_with(&engine, &[policy("web", limits)], &["maxmemory-policy noeviction"]).await;
        admit(&primary, KEY, &[]).await;
        server::config_set(&primary, "maxmemory", "1").await.unwrap();
        answers_without_deciding(&primary, Class::OutOfMemory).await;
        let other = limit_library(&[policy("web", vec![limit("now", GCRA, 9, 60 * MINUTE)])]);
        let refused = load(&primary, &other).await.unwrap_err();
        assert_eq!(refused.class(), Class::OutOfMemory, "{}: a policy cannot be changed", engine.name);
        // What only gives back works while memory is full.
        assert_eq!(decide(&primary, "limit_refund", KEY, &["1"]).await.verdict(), (1, 3));
        server::config_set(&primary, "maxmemory", "0").await.unwrap();
        admit(&primary, KEY, &[]).await;
        server::config_set(&primary, "maxmemory", "1").await.unwrap();
        assert_eq!(number(&primary, "limit_reset", &[KEY], &[]).await, 1);
        server::config_set(&primary, "maxmemory", "0").await.unwrap();
        admit(&primary, KEY, &[]).await;

        server::config_set(&primary, "min-replicas-to-write", "1").await.unwrap();
        answers_without_deciding(&primary, Class::TooFewReplicas).await;
        server::config_set(&primary, "min-replicas-to-write", "0").await.unwrap();

        let second = Process::server(&engine, &[]).await;
        let replica = second.connect().await;
        second.follow(&replica, &first).await;
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);
        answers_without_deciding(&replica, Class::ReadOnly).await;
    }
}

#[tokio::test]
async fn memory_that_is_full_forgets_who_matters_least_and_no_call_fails() {
    for engine in engines() {
        let limits = vec![limit("hour", Algorithm::Gcra { burst: 100 }, 100, 60 * MINUTE)];
        let (_process, connection) =
            server_with(&engine, &[policy("web", limits)], &["maxmemory-policy volatile-ttl"]).await;
        for subject in 0..200 {
            assert_eq!(admit(&connection, &format!("web:{{used{subject}}}"), &["100"]).await.remaining, 0);
        }
        let used: String = connection.query(cmd("INFO").arg("memory")).await.unwrap();
        let used: u64 = used.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap();
        server::config_set(&connection, "maxmemory", &(used + 500_000).to_string()).await.unwrap();
        for first in (0..20_000).step_by(1_000) {
            let calls: Vec<_> = (first..first + 1_000)
                .map(|subject| crate::support::limit_calls::limit_call(&format!("web:{{flood{subject}}}"), &[]))
                .collect();
            for reply in connection.query_all(&calls).await.unwrap() {
                reply.unwrap();
            }
        }
        let keys: i64 = connection.query(&cmd("DBSIZE")).await.unwrap();
        assert!(keys < 15_000, "{}: {keys} of 20,200 are there: memory was not full", engine.name);
        for subject in 0..200 {
            let answer = peek(&connection, &format!("web:{{used{subject}}}"), &[]).await;
            assert_eq!(answer.allowed, 0, "{}: {subject} was forgotten", engine.name);
        }
        // What makes room for states makes room for functions.
        load(&connection, &limit_library(&[single("web", GCRA, 9, 60 * MINUTE)])).await.unwrap();
    }
}
