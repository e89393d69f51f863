//! The caches against a model, and against many readers, with a clock of the test's.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redis::{Cmd, Value, cmd};
use redoubt::dataplane::cache_library;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::Connection;

use crate::support::cache_calls::{Answer, HOUR, MINUTE, policy};
use crate::support::cache_models::{Call, Model, Reply};
use crate::support::engine_process::engines;
use crate::support::function_clock::{BEGINNING, call_at, clocked_server};

const MS: i64 = 1_000;
const SECOND: i64 = 1_000 * MS;

/// Random calls against the model; `CACHE_CALLS=100000` for more.
fn calls() -> usize {
    std::env::var("CACHE_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000)
}

fn entry(key: usize) -> String {
    format!("web:{{0}}product {key}")
}

/// A call that is likely to matter: with a token that is, or was, the one of a lease of that entry.
fn random_call(random: &mut StdRng, number: usize, tokens: &[usize]) -> Call {
    let token = tokens.get(tokens.len().wrapping_sub(random.random_range(1..4))).copied();
    let tag = |random: &mut StdRng| format!("tag {}", random.random_range(0..3));
    let tags = |random: &mut StdRng| (0..random.random_range(0..3)).map(|_| tag(random)).collect::<Vec<_>>();
    let value = format!("value {number}");
    match random.random_range(0..20) {
        0..6 => Call::Get,
        6 => Call::Check,
        7 => Call::GetReadOnly,
        8..13 => Call::Set { token: token.filter(|_| random.random_range(0..5) > 0), value, tags: tags(random) },
        13 => Call::SetIfVersion { version: random.random_range(1..20), value, tags: tags(random) },
        14 => Call::Negative { token },
        15 => match token {
            Some(token) => Call::Fail { token, retry: random.random_range(1..20_000) },
            None => Call::Get,
        },
        16 | 17 => Call::Invalidate,
        18 => Call::InvalidateTag(tag(random)),
        _ => Call::Evict(tag(random)),
    }
}

/// The command of a call, where the token of each earlier call is known.
fn command_of(now: i64, key: &str, call: &Call, tokens: &BTreeMap<usize, String>) -> Cmd {
    let token = |of: &Option<usize>| of.map_or("", |of| tokens[&of].as_str());
    let with = |first: Vec<&str>, tags: &[String]| {
        let arguments: Vec<&str> = first.into_iter().chain(tags.iter().map(String::as_str)).collect();
        arguments.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let (function, arguments) = match call {
        Call::Get => ("cache_get", vec![]),
        Call::Check => ("cache_check", vec![]),
        Call::GetReadOnly => ("cache_get_ro", vec![]),
        Call::Set { token: of, value, tags } => ("cache_set", with(vec![token(of), value, ""], tags)),
        Call::SetIfVersion { version, value, tags } => {
            ("cache_set_if_version", with(vec![&version.to_string(), value, ""], tags))
        }
        Call::Negative { token: of } => ("cache_negative", with(vec![token(of)], &[])),
        Call::Fail { token: of, retry } => ("cache_fail", vec![tokens[of].clone(), retry.to_string()]),
        Call::Invalidate => ("cache_invalidate", vec![]),
        Call::InvalidateTag(tag) => {
            return call_at(now, "cache_invalidate_tag", "web:{0}", &[tag]);
        }
        Call::Evict(tag) => return cmd("UNLINK").arg(format!("web:{{0}}@t:{tag}")).clone(),
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    call_at(now, function, key, &arguments)
}

#[tokio::test]
async fn every_call_answers_as_the_model() {
    for engine in engines() {
        for (seed, stale_ms) in [(1, 0), (2, 20_000)] {
            let namespace =
                CachePolicy { ttl_ms: 30_000, stale_ms, negative_ms: 5_000, lease_ms: 10_000, ..policy("web") };
            let (_process, connection) = clocked_server(&engine, cache_library(std::slice::from_ref(&namespace))).await;
            let (mut model, mut random) = (Model::new(namespace), StdRng::seed_from_u64(seed));
            let (mut now, mut tokens) = (BEGINNING, BTreeMap::new());
            let mut of_entry: Vec<Vec<usize>> = vec![Vec::new(); 3];
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for number in 0..calls() {
                now += match random.random_range(0..10) {
                    0..5 => 1 + random.random_range(0..100),
                    5..9 => random.random_range(1..2 * SECOND),
                    _ => random.random_range(1..20 * SECOND),
                };
                let key = random.random_range(0..3);
                let call = random_call(&mut random, number, &of_entry[key]);
                let reply: Value = connection
                    .query(&command_of(now, &entry(key), &call, &tokens))
                    .await
                    .unwrap_or_else(|error| panic!("{call:?}: {error:?}"));
                let found = match reply {
                    Value::Int(number) => Reply::Number(number),
                    other => {
                        let answer = Answer::read(other);
                        let has_token = !answer.token.is_empty();
                        if has_token {
                            tokens.insert(number, answer.token);
                            of_entry[key].push(number);
                        }
                        Reply::Read(answer.verdict, answer.value, has_token, answer.milliseconds)
                    }
                };
                if let Call::Evict(tag) = &call {
                    connection.query::<()>(cmd("HDEL").arg("ends").arg(format!("web:{{0}}@t:{tag}"))).await.unwrap();
                }
                let expected = model.answer(number, key, now, &call);
                assert_eq!(found, expected, "{} seed {seed}, call {number} of {key} at {now}: {call:?}", engine.name);
                let verdict = match found {
                    Reply::Read(verdict, ..) => format!("{verdict}"),
                    Reply::Number(answer) => format!("{call:.5?} {}", answer.min(1)),
                };
                *seen.entry(verdict).or_default() += 1;
            }
            let wanted: &[&str] =
                if stale_ms > 0 { &["-2", "-1", "0", "1", "2", "3", "4"] } else { &["-2", "-1", "0", "1", "4"] };
            for verdict in wanted {
                assert!(seen.get(*verdict).is_some_and(|count| *count >= 5), "{verdict} is rare: {seen:?}");
            }
        }
    }
}

/// What readers were told who come at random moments, a hundred a second, each of whom computes for `computing` where it is told to.
#[derive(Debug, Default)]
struct Crowd {
    computations: usize,
    early: usize,
    waited: usize,
    stale: usize,
    failed: usize,
    served: usize,
    longest_at_once: usize,
}

/// Sends readers for `readers` calls. `fails` says whether the source is down at a moment.
async fn crowd(
    connection: &Connection,
    readers: usize,
    computing: i64,
    fails: impl Fn(i64) -> bool,
    mut heard: impl FnMut(i64, &Answer),
) -> Crowd {
    let (mut random, mut crowd) = (StdRng::seed_from_u64(5), Crowd::default());
    let (key, mut now) = (entry(0), BEGINNING);
    let mut due: Vec<(i64, String)> = Vec::new();
    let mut sent = 0;
    while sent < readers {
        // What comes within one computation: a token that is given in it is due behind it.
        let until = due.iter().map(|(at, _)| *at).min().unwrap_or(now + computing).min(now + computing);
        let mut moments = Vec::new();
        loop {
            let next = now + 1 + random.random_range(0..20 * MS);
            if next >= until {
                break;
            }
            now = next;
            moments.push(now);
        }
        now = until;
        sent += moments.len();
        let calls: Vec<Cmd> = moments.iter().map(|at| call_at(*at, "cache_get", &key, &[])).collect();
        for (at, reply) in moments.iter().zip(connection.query_all(&calls).await.unwrap()) {
            let answer = Answer::read(reply.unwrap());
            heard(*at, &answer);
            if !answer.token.is_empty() {
                crowd.computations += 1;
                due.push((at + computing, answer.token.clone()));
                crowd.longest_at_once = crowd.longest_at_once.max(due.len());
                crowd.early += usize::from(answer.verdict == 3);
            }
            crowd.served += usize::from(answer.value.is_some());
            crowd.waited += usize::from(answer.verdict == -1);
            crowd.failed += usize::from(answer.verdict == -2);
            crowd.stale += usize::from(answer.verdict == 2);
        }
        let (over, under_way): (Vec<_>, Vec<_>) = due.into_iter().partition(|(at, _)| *at <= now);
        due = under_way;
        for (at, token) in over {
            now += 1;
            let (function, arguments) = if fails(at) {
                ("cache_fail", vec![token.as_str(), "1000"])
            } else {
                ("cache_set", vec![token.as_str(), "value"])
            };
            let told: i64 = connection.query(&call_at(now, function, &key, &arguments)).await.unwrap();
            assert_eq!(told, 1, "the lease outlasts the computation");
        }
    }
    crowd
}

/// A TTL of 10 s, a source that takes 200 ms, 100 readers a second: 1,000 readers are a TTL.
#[tokio::test]
async fn a_hundred_thousand_readers_compute_about_once_in_a_ttl_and_wait_for_nothing_but_the_first() {
    for engine in engines() {
        for (early_percent, ttls) in [(100, 100), (0, 30)] {
            let namespace = CachePolicy { ttl_ms: 10_000, early_percent, ..policy("web") };
            let (_process, connection) = clocked_server(&engine, cache_library(&[namespace])).await;
            let crowd = crowd(&connection, ttls * 1_000, 200 * MS, |_| false, |_, _| {}).await;
            println!("{}: early refresh {early_percent} %: {crowd:?}", engine.name);
            assert_eq!(crowd.longest_at_once, 1, "{}: one computation at a time", engine.name);
            assert!(
                (ttls * 9 / 10..=ttls * 3 / 2).contains(&crowd.computations),
                "{}: {crowd:?} in {ttls} TTLs",
                engine.name
            );
            if early_percent > 0 {
                // Of all refreshes all but a few are early: no reader waits for those.
                assert!(crowd.early * 10 >= crowd.computations * 9, "{}: {crowd:?}", engine.name);
                assert!(crowd.waited < 400, "{}: {crowd:?}", engine.name);
            } else {
                assert_eq!(crowd.early, 0);
                assert!(crowd.waited > 300, "{}: without it they wait at each end: {crowd:?}", engine.name);
            }
        }
    }
}

/// The source is down for two minutes; what it gave before is stale for one.
#[tokio::test]
async fn a_source_that_is_down_is_asked_once_a_second_while_what_is_stale_is_served_to_its_hard_end() {
    let (down_from, down_until) = (BEGINNING + 30 * SECOND, BEGINNING + 150 * SECOND);
    for engine in engines() {
        let namespace =
            CachePolicy { ttl_ms: 10_000, stale_ms: MINUTE, max_ttl_ms: HOUR, early_percent: 100, ..policy("web") };
        let (_process, connection) = clocked_server(&engine, cache_library(&[namespace])).await;
        let (mut first_stale, mut last_served, mut first_failed, mut back) = (0, 0, 0, 0);
        let fails = |at| (down_from..down_until).contains(&at);
        let crowd = crowd(&connection, 20_000, 50 * MS, fails, |at, answer| {
            if at > down_from && answer.verdict == 2 && first_stale == 0 {
                first_stale = at;
            }
            if at > down_from && at < down_until && answer.value.is_some() {
                last_served = at;
            }
            if answer.verdict == -2 && first_failed == 0 {
                first_failed = at;
            }
            if at > down_until && answer.verdict == 1 && back == 0 {
                back = at;
            }
        })
        .await;
        println!("{}: {crowd:?}", engine.name);
        let since = |at: i64| (at - down_from) / SECOND;
        // The last value that it gave is fresh for up to 10 s, and stale for 60 more.
        assert!((0..=10).contains(&since(first_stale)), "{}: stale from {} s", engine.name, since(first_stale));
        assert!((55..=70).contains(&since(last_served)), "{}: served for {} s", engine.name, since(last_served));
        assert!(first_failed > last_served && since(first_failed) <= 71, "{}: then an error", engine.name);
        assert!((120..=122).contains(&since(back)), "{}: fresh again after {} s", engine.name, since(back));
        // 120 s at one try each 1,050 ms, and what is refreshed in the 80 other seconds.
        assert!((100..=150).contains(&crowd.computations), "{}: {crowd:?}", engine.name);
        assert_eq!(crowd.longest_at_once, 1);
    }
}
