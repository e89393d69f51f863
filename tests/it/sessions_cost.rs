//! What the session functions cost beside plain commands that do the same, and what a library of 10,000 stores costs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::{Cmd, cmd};
use redoubt::dataplane::{load, session_library};
use redoubt::model::session_policy::SessionPolicy;
use redoubt::redis::Connection;

use crate::support::engine_process::{Engine, Process, engines};
use crate::support::figures::server_micros;
use crate::support::session_calls::{HOUR, call, number, policy, server_with};

const PAGE: &str = "docs/uses/sessions.md";
/// Calls of one kind by all connections together.
const CALLS: usize = 20_000;
/// Bytes of a session's one field.
const PAYLOAD: usize = 512;

/// Puts `text` between the comments that begin with `begin` and `end`.
pub fn put(page: &str, begin: &str, end: &str, text: &str) -> String {
    let (head, rest) = page.split_once(begin).expect("the page has a place for this");
    let (_, tail) = rest.split_once(end).expect("the place has an end");
    format!("{head}{begin}\n\n{text}\n{end}{tail}")
}

#[tokio::test]
async fn ten_thousand_stores_load_within_the_limit() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[], &[]).await;
        let stores: Vec<SessionPolicy> = (0..10_000)
            .map(|number| SessionPolicy {
                store: format!("namespace{}/store{number}", number % 50),
                generation: number,
                max_per_user: Some(5),
                ..policy(&format!("store{number}"))
            })
            .collect();
        let library = session_library(&stores);
        load(&connection, &library).await.unwrap();
        let took = server_micros(&connection, Some("function|load")).await;
        let memory: String = connection.query(cmd("INFO").arg("memory")).await.unwrap();
        let field = |name: &str| -> u64 {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.parse().unwrap()
        };
        let (source, lua) = (field("used_memory_functions:"), field("used_memory_vm_functions:"));
        println!("{}: 10,000 stores loaded in {} ms; {source} bytes and {lua} of Lua", engine.name, took / 1000);
        assert!(took < 500_000, "Redis gives a library 500 ms");
        assert!(source + lua < 20 << 20);
        number(&connection, "session_create", &["store9999:{t}s:a"], &["bob"]).await;
        let policies: Vec<String> =
            redis::from_redis_value(call(&connection, "sessions_policies", &[], &[]).await.unwrap()).unwrap();
        assert_eq!(policies.len(), 20_000);
    }
}

/// Payloads whose cost in memory `docs/operations.md` tells, bytes.
const PAYLOADS: [usize; 3] = [128, 512, 2_048];
/// The page for sizing, and where in it the table is.
const SIZING: (&str, &str, &str) = (
    "docs/operations.md",
    "<!-- sizes: written by `UPDATE=1 cargo test --test it sessions_cost` -->",
    "<!-- end of sizes -->",
);

/// Bytes of memory that one session of a user of its own takes, its place in the user's index included.
async fn bytes_of_a_session(engine: &Engine, payload: usize) -> u64 {
    let (_process, connection) = server_with(engine, &[policy("web")], &[]).await;
    let used = async || {
        let text: String = connection.query(cmd("INFO").arg("memory")).await.unwrap();
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        used.trim().parse::<u64>().unwrap()
    };
    let before = used().await;
    let data = "x".repeat(payload);
    for first in (0..CALLS).step_by(1_000) {
        let create = |number: usize| {
            let mut create = cmd("FCALL");
            create.arg("redoubt_session_create").arg(1).arg(format!("web:{{{number:08x}}}s:{number:032x}"));
            create.arg(format!("user-{number}")).arg("data").arg(&data).clone()
        };
        let commands: Vec<Cmd> = (first..first + 1_000).map(create).collect();
        for reply in connection.query_all(&commands).await.unwrap() {
            reply.unwrap();
        }
    }
    (used().await - before) / CALLS as u64
}

#[tokio::test]
async fn the_page_for_sizing_tells_what_a_session_takes() {
    let mut measured = Vec::new();
    for engine in engines() {
        for payload in PAYLOADS {
            measured.push((engine.name.clone(), payload, bytes_of_a_session(&engine, payload).await));
        }
    }
    let (path, begin, end) = SIZING;
    let page = std::fs::read_to_string(path).unwrap();
    let row = |engine: &str, payload: usize| format!("| {engine} | {payload} | ");
    if std::env::var_os("UPDATE").is_some() {
        let mut text = String::from("| engine | bytes of its fields | bytes of memory |\n|---|---|---|\n");
        for (engine, payload, bytes) in &measured {
            let _ = writeln!(text, "{}{bytes} |", row(engine, *payload));
        }
        std::fs::write(path, put(&page, begin, end, &text)).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    for (engine, payload, bytes) in measured {
        let told =
            page.split(&row(&engine, payload)).nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let Some(told) = told else {
            assert_eq!(engine, "default", "{path} tells nothing of {engine}; `tests/run` names the engines");
            continue;
        };
        assert!(told.abs_diff(bytes) * 20 <= bytes, "{path}: {engine}, {payload}: {bytes}, not {told}");
    }
}

/// One way to do one thing: the commands of each round trip. One round trip's answers do not decide the next's commands
/// here, but they do in an application.
struct Way {
    thing: &'static str,
    functions: fn(usize, &str) -> Vec<Vec<Cmd>>,
    plain: fn(usize, &str) -> Vec<Vec<Cmd>>,
}

fn key(number: usize) -> String {
    format!("web:{{t{number}}}s:{number}")
}

fn index(number: usize) -> String {
    format!("web:{{t{number}}}u:user{number}")
}

fn function(name: &str, number: usize, arguments: &[&str]) -> Vec<Vec<Cmd>> {
    let mut call = cmd("FCALL");
    call.arg(format!("redoubt_session_{name}")).arg(1).arg(key(number)).arg(arguments);
    vec![vec![call]]
}

fn plain(words: &[&str]) -> Cmd {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    command
}

/// The least that stock clients can do for the same: no guard against a race is better than none where it needs a script.
fn ways() -> [Way; 4] {
    [
        Way {
            thing: "create",
            functions: |number, payload| function("create", number, &[&format!("user{number}"), "data", payload]),
            plain: |number, payload| {
                let (key, index, hour) = (key(number), index(number), HOUR.to_string());
                let user = format!("user{number}");
                vec![
                    vec![plain(&["HSETNX", &key, "user", &user])],
                    vec![
                        plain(&["MULTI"]),
                        plain(&["HSET", &key, "created", "1795556093345", "version", "1", "data", payload]),
                        plain(&["PEXPIRE", &key, &hour]),
                        plain(&["ZADD", &index, "1795559693345", &number.to_string()]),
                        plain(&["PEXPIRE", &index, &hour]),
                        plain(&["EXEC"]),
                    ],
                ]
            },
        },
        Way {
            thing: "get, renewing",
            functions: |number, _| function("get", number, &[]),
            plain: |number, _| {
                let (key, index, hour) = (key(number), index(number), HOUR.to_string());
                vec![
                    vec![plain(&["HGETALL", &key]), plain(&["PTTL", &key])],
                    vec![
                        plain(&["PEXPIRE", &key, &hour]),
                        plain(&["ZADD", &index, "1795559693345", &number.to_string()]),
                        plain(&["PEXPIRE", &index, &hour]),
                    ],
                ]
            },
        },
        Way {
            thing: "set a field, if the version is still that",
            functions: |number, payload| function("set", number, &["", "1", "data", payload]),
            plain: |number, payload| {
                let (key, hour) = (key(number), HOUR.to_string());
                vec![
                    vec![plain(&["WATCH", &key]), plain(&["HGET", &key, "version"])],
                    vec![
                        plain(&["MULTI"]),
                        plain(&["HSET", &key, "data", payload, "version", "2"]),
                        plain(&["PEXPIRE", &key, &hour]),
                        plain(&["EXEC"]),
                    ],
                ]
            },
        },
        Way {
            thing: "revoke",
            functions: |number, _| function("revoke", number, &[]),
            plain: |number, _| {
                let key = key(number);
                vec![
                    vec![plain(&["HGET", &key, "user"])],
                    vec![plain(&["UNLINK", &key]), plain(&["ZREM", &index(number), &number.to_string()])],
                ]
            },
        },
    ]
}

/// Things done per second and server microseconds for each.
async fn cost(connections: &[Connection], steps: fn(usize, &str) -> Vec<Vec<Cmd>>) -> (f64, f64) {
    let admin = &connections[0];
    let payload = "v".repeat(PAYLOAD);
    admin.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    let began = Instant::now();
    let each = CALLS / connections.len();
    let workers = connections.iter().cloned().enumerate().map(|(worker, connection)| {
        let payload = payload.clone();
        tokio::spawn(async move {
            for number in worker * each..(worker + 1) * each {
                for round_trip in steps(number, &payload) {
                    for answer in connection.query_all(&round_trip).await.unwrap() {
                        answer.unwrap();
                    }
                }
            }
        })
    });
    join_all(workers.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
    let elapsed = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (calls, micros) = ((each * connections.len()) as f64, server_micros(admin, None).await as f64);
    (calls / elapsed, micros / calls)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn sessions_are_measured_and_written() {
    let mut text = format!(
        "Written by `make bench`: {CALLS} sessions of {PAYLOAD} bytes, each of a user of its own, loopback, two cores shared by \
         clients and server. Plain commands take two round trips, the second decided by the first's answer; they have no \
         cap, no absolute lifetime, and no throttle of renewals (every read here renews). Server time is that of \
         `INFO commandstats`.\n\n| engine | | connections | FCALL /s | plain /s | FCALL server µs | plain server µs |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for engine in engines() {
        for count in [1, 50] {
            let (process, _) = server_with(&engine, &[policy("web")], &[]).await;
            let connections = join_all((0..count).map(|_| open(&process))).await;
            let mut rows = Vec::new();
            for way in ways() {
                rows.push((way.thing, cost(&connections, way.functions).await));
            }
            connections[0].query::<()>(&cmd("FLUSHALL")).await.unwrap();
            for (way, (thing, (rate, micros))) in ways().into_iter().zip(rows) {
                let (plain_rate, plain_micros) = cost(&connections, way.plain).await;
                let _ = writeln!(
                    text,
                    "| {} | {thing} | {count} | {rate:.0} | {plain_rate:.0} | {micros:.1} | {plain_micros:.1} |",
                    engine.name
                );
            }
        }
    }
    println!("{text}");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let written = put(&page, "<!-- sessions: written by `make bench` -->", "<!-- end of sessions -->", &text);
    std::fs::write(PAGE, written).unwrap();
}

async fn open(process: &Process) -> Connection {
    process.connect().await.with_response_timeout(Duration::from_secs(20))
}
