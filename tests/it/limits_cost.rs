//! What a decision costs beside `INCR` and the leanest script that does the same, and what a library of 10,000 policies costs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, cmd};
use redoubt::dataplane::{limit_library, load};
use redoubt::model::limit_policy::{Algorithm, LimitPolicy};

use crate::support::engine_process::engines;
use crate::support::figures::{cost, server_micros};
use crate::support::limit_calls::{
    Answer, MINUTE, admit, limit, limit_call, one_of_each, policy, rows, server_with, single,
};

/// GCRA by hand, as lean as it gets: parameters from the caller, and no more in the reply than a client needs.
const LEAN: &str = "local time = redis.call('TIME') \
    local now, interval, most, cost = time[1] * 1000000 + time[2], ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0 \
    local tat = redis.call('GET', KEYS[1]) \
    tat = tat and tat + 0 or now \
    if tat < now then tat = now end \
    local used = tat - now + cost * interval \
    if used > most then \
      return {0, 100, math.floor((most - tat + now) / interval), math.ceil((tat - now) / 1000), math.ceil((used - most) / 1000)} \
    end \
    local ms = math.ceil(used / 1000) \
    redis.call('SET', KEYS[1], now + used, 'PX', ms) \
    return {1, 100, math.floor((most - used) / interval), ms, 0}";
/// Subjects among which calls are spread.
const SUBJECTS: usize = 5_000;
/// Calls of one kind by all connections together.
const CALLS: usize = 40_000;
const GCRA: Algorithm = Algorithm::Gcra { burst: 100 };

fn many() -> Vec<LimitPolicy> {
    (0..10_000).map(|number| single(&format!("p{number}:api"), GCRA, 100, MINUTE)).collect()
}

#[tokio::test]
async fn ten_thousand_policies_load_fast_and_each_is_found() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[], &[]).await;
        load(&connection, &limit_library(&many())).await.unwrap();
        let took = server_micros(&connection, Some("function|load")).await;
        println!(
            "{}: 10,000 policies loaded in {:.1} ms",
            engine.name,
            Duration::from_micros(took).as_secs_f64() * 1e3
        );
        // Some 10 ms on a machine at rest, and a multiple where the server waits for a processor; Redis gives a library 500 ms.
        assert!(took < 250_000, "{}: {took} µs", engine.name);
        let calls: Vec<Cmd> = (0..10_000).map(|number| limit_call(&format!("p{number}:api:{{a}}"), &[])).collect();
        for some in calls.chunks(500) {
            for reply in connection.query_all(some).await.unwrap() {
                assert_eq!(Answer::read(reply.unwrap()).verdict(), (1, 99), "{}", engine.name);
            }
        }
        let counted = rows(&connection).await;
        assert_eq!(counted.iter().map(|row| &row.owner).collect::<BTreeSet<_>>().len(), 10_000);
        assert!(counted.iter().all(|row| row.counts == [1, 0, 0]));
    }
}

/// What is counted of the server's time: what a function or script runs is in its own time too.
const COUNTED: [&str; 4] = ["fcall", "fcall_ro", "evalsha", "incr"];

/// A command for each of many calls, and what it is called.
type Way = (String, Box<dyn Fn(usize) -> Cmd>);

/// The commands that are measured.
fn ways(script: &str) -> Vec<Way> {
    let subject = |prefix: &str, number: usize| format!("{prefix}{{{}}}", number * 7 % SUBJECTS);
    let script = script.to_owned();
    let mut ways: Vec<Way> = vec![
        ("INCR".to_owned(), Box::new(move |number| cmd("INCR").arg(subject("x:", number)).clone())),
        (
            "lean script".to_owned(),
            Box::new(move |number| {
                let mut call = cmd("EVALSHA");
                call.arg(&script).arg(1).arg(subject("lean:", number)).arg(3_600).arg(3_600_000_000_u64).arg(1);
                call
            }),
        ),
    ];
    for letter in ["g", "b", "m", "s", "f", "h", "c", "l"] {
        let prefix = format!("{letter}:");
        ways.push((format!("limit {letter}"), Box::new(move |number| limit_call(&subject(&prefix, number), &[]))));
    }
    ways.push(("limit, three GCRA".to_owned(), Box::new(move |number| limit_call(&subject("three:", number), &[]))));
    ways.push((
        "limit g, with an id".to_owned(),
        Box::new(move |number| limit_call(&subject("g:", number), &["1", "ID", &number.to_string()])),
    ));
    ways
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn limits_are_measured() {
    for engine in engines() {
        // Quotas that no run uses up, but the log's, which has at most 10,000 entries.
        let mut policies = one_of_each(10_000, 60 * MINUTE);
        let three = ["a", "b", "c"].map(|name| limit(name, Algorithm::Gcra { burst: 10_000 }, 10_000, 60 * MINUTE));
        policies.push(policy("three", three.to_vec()));
        let (process, connection) = server_with(&engine, &policies, &[]).await;
        let script: String = connection.query(cmd("SCRIPT").arg("LOAD").arg(LEAN)).await.unwrap();
        for (count, depth) in [(50, 1), (1, 1), (4, 16)] {
            let connections = join_all((0..count).map(|_| process.connect())).await;
            for (name, way) in ways(&script) {
                let mut runs = Vec::new();
                for _ in 0..3 {
                    runs.push(cost(&connections, depth, CALLS, &COUNTED, |number| vec![way(number)]).await);
                }
                runs.sort_by(|one, other| one.1.total_cmp(&other.1));
                let (rate, micros) = runs[1];
                println!(
                    "{} | {count} connections, {depth} deep | {name} | {rate:.0} /s | {micros:.2} µs",
                    engine.name
                );
            }
        }
        policies.extend(many());
        for (what, policies) in [("10", &policies[..10]), ("10,010", &policies[..])] {
            load(&connection, &limit_library(policies)).await.unwrap();
            let connections = join_all((0..50).map(|_| process.connect())).await;
            let (_, micros) = cost(&connections, 1, CALLS, &COUNTED, |number| {
                vec![limit_call(&format!("g:{{{}}}", number % SUBJECTS), &[])]
            })
            .await;
            println!("{} | a decision among {what} policies | {micros:.2} µs", engine.name);
        }
        assert_eq!(admit(&connection, "p9999:api:{a}", &[]).await.allowed, 1);
    }
}
