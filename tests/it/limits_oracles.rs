//! The decisions of each algorithm against models, under random arrivals and a clock of the test's.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redis::Cmd;
use redoubt::model::limit_policy::{Algorithm, Limit, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::Connection;

use crate::support::engine_process::engines;
use crate::support::function_calls::changes;
use crate::support::limit_calls::{Answer, algorithms, draft, limit, policy, single};
use crate::support::limit_clock::{BEGINNING, call_at, clocked_server, decide_all, decide_at, load_clocked};
use crate::support::limit_models::{Model, Verdict};

/// Quota, window in milliseconds and burst: intervals that divide the window and such that do not, and one call per window.
const SIZES: [(u64, u64, u64); 4] = [(20, 100, 7), (7, 100, 10), (1, 3, 1), (150, 1_000, 40)];

/// Arrivals of each stream; `make soak` sets `LIMITS_ARRIVALS=200000`.
fn arrivals() -> usize {
    std::env::var("LIMITS_ARRIVALS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000)
}

/// Moments and costs that keep a limit of this size about full, with pauses and with many calls at one moment.
fn stream(seed: u64, quota: u64, window: u64, count: usize) -> Vec<(i64, i64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mean = i64::try_from(window * 1_000 / quota).unwrap();
    let largest = i64::try_from(quota).unwrap();
    let mut now = BEGINNING;
    let mut next = || {
        now += match random.random_range(0..20) {
            0..4 => 0,
            4 => 1,
            5 => random.random_range(0..30 * mean),
            6 => random.random_range(0..3) * 1_000,
            _ => random.random_range(0..2 * mean),
        };
        let cost = match random.random_range(0..10) {
            0 => random.random_range(1..=largest + 1),
            1..3 => random.random_range(1..=3),
            _ => 1,
        };
        (now, cost)
    };
    (0..count).map(|_| next()).collect()
}

fn rounded_up(microseconds: i64) -> i64 {
    (microseconds + 999).div_euclid(1_000)
}

/// A policy of its own for each algorithm and size, and its limit.
fn policies() -> Vec<(LimitPolicy, Limit)> {
    let mut policies = Vec::new();
    for (at, (quota, window, burst)) in SIZES.into_iter().enumerate() {
        for algorithm in algorithms(burst) {
            let policy = single(&format!("{}{at}", algorithm.letter()), algorithm, quota, window);
            let limit = policy.declared().limits[0].clone();
            policies.push((policy, limit));
        }
    }
    policies
}

fn key_of(policy: &LimitPolicy) -> String {
    format!("{}{{o}}", policy.declared().prefix)
}

async fn admit_all(connection: &Connection, key: &str, stream: &[(i64, i64)]) -> Vec<Answer> {
    let call = |(now, cost): &(i64, i64)| call_at(*now, "limit", key, &[&cost.to_string()]);
    decide_all(connection, &stream.iter().map(call).collect::<Vec<Cmd>>()).await
}

#[tokio::test]
async fn every_algorithm_decides_as_its_model_and_no_window_holds_more_than_the_worst_case() {
    for engine in engines() {
        let policies = policies();
        let declared: Vec<LimitPolicy> = policies.iter().map(|(policy, _)| policy.clone()).collect();
        let (_process, connection) = clocked_server(&engine, &declared).await;
        for (policy, limit) in &policies {
            let (key, seed) = (key_of(policy), limit.quota);
            let stream = stream(seed, limit.quota, limit.window_milliseconds, arrivals());
            let answers = admit_all(&connection, &key, &stream).await;
            let mut model = Model::new(limit);
            let mut denied = 0;
            for ((now, cost), answer) in stream.iter().zip(&answers) {
                let Verdict { fits, remaining, reset } = model.decide(*now, *cost);
                let expected = (i64::from(fits), remaining, rounded_up(reset));
                let found = (answer.allowed, answer.remaining, answer.reset);
                assert_eq!(found, expected, "{} {key} at {now}, cost {cost}: {answer:?}", engine.name);
                denied += usize::from(!fits);
            }
            let share = denied * 100 / stream.len();
            assert!((5..=95).contains(&share), "{key}: {share} % denied show little");
            let most = model.fullest_window();
            assert!(most.unsigned_abs() <= limit.worst_case(), "{key}: {most} within a window");
        }
    }
}

#[tokio::test]
async fn gcra_token_bucket_and_leaky_bucket_answer_alike() {
    for engine in engines() {
        for (quota, window, burst) in SIZES {
            let [gcra, bucket, meter, shaper, ..] =
                algorithms(burst).map(|algorithm| single(&algorithm.letter().to_string(), algorithm, quota, window));
            let declared = [gcra, bucket, meter, shaper];
            let (_process, connection) = clocked_server(&engine, &declared).await;
            let stream = stream(7, quota, window, arrivals());
            let mut answers = Vec::new();
            for policy in &declared {
                answers.push(admit_all(&connection, &key_of(policy), &stream).await);
            }
            assert!(answers[0] == answers[1], "{}: GCRA and token bucket differ", engine.name);
            assert!(answers[0] == answers[2], "{}: GCRA and leaky bucket differ", engine.name);
            let verdicts = |answers: &[Answer]| answers.iter().map(Answer::verdict).collect::<Vec<_>>();
            assert_eq!(verdicts(&answers[0]), verdicts(&answers[3]), "{}", engine.name);
        }
    }
}

/// The clock stands still after a denial but for the caller who waits: asked at once, because the next arrival changes the state.
async fn retries_are_honest(connection: &Connection, policy: &LimitPolicy, limit: &Limit) -> usize {
    let key = key_of(policy);
    let mut honest = 0;
    for (now, cost) in stream(11, limit.quota, limit.window_milliseconds, arrivals() / 20) {
        let words = cost.to_string();
        let answer = decide_at(connection, now, "limit", &key, &[&words]).await;
        let largest = i64::try_from(limit.algorithm.burst().unwrap_or(limit.quota)).unwrap();
        assert_eq!(answer.retry == -1, cost > largest, "{key}, cost {cost}: {answer:?}");
        if answer.allowed == 0 && answer.retry > 0 {
            let then = decide_at(connection, now + answer.retry * 1_000, "limit_peek", &key, &[&words]).await;
            assert_eq!(then.allowed, 1, "{key} at {now}, cost {cost}: refused after {} ms: {then:?}", answer.retry);
            let before = decide_at(connection, now + (answer.retry - 1) * 1_000, "limit_peek", &key, &[&words]).await;
            assert_eq!(before.allowed, 0, "{key} at {now}, cost {cost}: admitted before {} ms", answer.retry);
            honest += 1;
        }
    }
    honest
}

#[tokio::test]
async fn a_denied_call_is_admitted_after_exactly_what_it_was_told_to_wait() {
    for engine in engines() {
        for counts_denied in [false, true] {
            let mut declared = Vec::new();
            for (policy, limit) in policies() {
                let draft = LimitPolicyDraft { count_denied: counts_denied, ..policy.declared().clone() };
                declared.push((LimitPolicy::parse(draft).unwrap(), limit));
            }
            let all: Vec<LimitPolicy> = declared.iter().map(|(policy, _)| policy.clone()).collect();
            let (_process, connection) = clocked_server(&engine, &all).await;
            for (policy, limit) in &declared {
                let honest = retries_are_honest(&connection, policy, limit).await;
                assert!(honest >= 5, "{}: {honest} denials show little", policy.declared().prefix);
            }
        }
    }
}

#[tokio::test]
async fn a_peek_writes_nothing_says_what_the_call_would_and_a_cheaper_call_fits_where_a_dearer_does() {
    for engine in engines() {
        let policies = policies();
        let declared: Vec<LimitPolicy> = policies.iter().map(|(policy, _)| policy.clone()).collect();
        let (_process, connection) = clocked_server(&engine, &declared).await;
        for (policy, limit) in &policies {
            let key = key_of(policy);
            for (now, cost) in stream(13, limit.quota, limit.window_milliseconds, arrivals() / 30) {
                let before = changes(&connection).await;
                let mut fits = true;
                for cheaper in [0, 1, (cost + 1) / 2, cost] {
                    let peeked = decide_at(&connection, now, "limit_peek", &key, &[&cheaper.to_string()]).await;
                    assert!(fits || peeked.allowed == 0, "{key}: {cheaper} of {cost} fits, but less does not");
                    fits = peeked.allowed == 1;
                }
                assert_eq!(changes(&connection).await, before, "{key}: a peek wrote");
                let peeked = decide_at(&connection, now, "limit_peek", &key, &[&cost.to_string()]).await;
                let called = decide_at(&connection, now, "limit", &key, &[&cost.to_string()]).await;
                assert_eq!(peeked, called, "{} {key} at {now}", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn what_was_taken_can_be_given_back_and_is_then_as_if_never_taken() {
    for engine in engines() {
        let policies = policies();
        let declared: Vec<LimitPolicy> = policies.iter().map(|(policy, _)| policy.clone()).collect();
        let (_process, connection) = clocked_server(&engine, &declared).await;
        for (policy, limit) in &policies {
            let key = key_of(policy);
            let mut given_back = 0;
            for (now, cost) in stream(17, limit.quota, limit.window_milliseconds, arrivals() / 30) {
                let cost = cost.to_string();
                let before = decide_at(&connection, now, "limit_peek", &key, &["0"]).await;
                if decide_at(&connection, now, "limit", &key, &[&cost]).await.allowed == 0 {
                    continue;
                }
                if given_back % 2 == 0 {
                    let after = decide_at(&connection, now, "limit_refund", &key, &[&cost]).await;
                    assert_eq!(after, before, "{} {key} at {now}, cost {cost}", engine.name);
                    assert_eq!(decide_at(&connection, now, "limit_peek", &key, &["0"]).await, before);
                }
                given_back += 1;
            }
            assert!(given_back > 10, "{key}");
            // Never below nothing.
            let later = BEGINNING + 3_600_000_000;
            decide_at(&connection, later, "limit", &key, &["1"]).await;
            let after = decide_at(&connection, later, "limit_refund", &key, &["999999999999"]).await;
            let new = format!("{}{{new}}", policy.declared().prefix);
            assert_eq!(after, decide_at(&connection, later, "limit_peek", &new, &["0"]).await, "{key}");
        }
    }
}

#[tokio::test]
async fn after_a_clock_that_went_back_nothing_is_locked_for_longer_than_it_says_and_rates_hold() {
    const HOUR: i64 = 3_600_000_000;
    for engine in engines() {
        let declared: Vec<LimitPolicy> =
            algorithms(20).into_iter().map(|it| single(&it.letter().to_string(), it, 20, 100)).collect();
        let (_process, connection) = clocked_server(&engine, &declared).await;
        for policy in &declared {
            let limit = &policy.declared().limits[0];
            for (back, subject) in [(HOUR, "hour"), (50_000, "half"), (1, "micro")] {
                let key = format!("{}{{{subject}}}", policy.declared().prefix);
                while decide_at(&connection, BEGINNING, "limit", &key, &[]).await.allowed == 1 {}
                let then = BEGINNING - back;
                let told = decide_at(&connection, then, "limit", &key, &[]).await;
                if told.allowed == 0 {
                    let at = |ms: i64| decide_at(&connection, then + ms * 1_000, "limit_peek", &key, &[]);
                    // The window that goes on ends where it would have, a half one later; a counter then lets one in after 5 ms.
                    assert!(told.retry <= 155, "{} {key}: locked for {} ms", engine.name, told.retry);
                    assert_eq!(at(told.retry).await.allowed, 1, "{} {key}: {told:?}", engine.name);
                    assert_eq!(at(told.retry - 1).await.allowed, 0, "{} {key}: {told:?}", engine.name);
                }
                let mut admitted = told.allowed;
                for ms in 1..100 {
                    admitted += decide_at(&connection, then + ms * 1_000, "limit", &key, &[]).await.allowed;
                }
                let most = i64::try_from(limit.worst_case()).unwrap();
                assert!(admitted <= most, "{} {key}: {admitted} in the window after", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn a_changed_policy_keeps_what_is_counted_and_admits_no_more_than_the_new_one_may() {
    for engine in engines() {
        let (_process, connection) = clocked_server(&engine, &[]).await;
        for (at, old) in algorithms(20).into_iter().enumerate() {
            let name = old.letter().to_string();
            for (burst, quota, window) in [(5, 5, 100), (40, 40, 100), (20, 20, 50), (20, 20, 300), (3, 60, 1_000)] {
                let limit = limit("only", algorithms(burst)[at], quota, window);
                let key = format!("{name}:{{{burst}-{quota}-{window}}}");
                load_clocked(&connection, &[single(&name, old, 20, 100)]).await;
                while decide_at(&connection, BEGINNING, "limit", &key, &[]).await.allowed == 1 {}
                load_clocked(&connection, &[policy(&name, vec![limit.clone()])]).await;
                let now = BEGINNING + 1;
                let told = decide_at(&connection, now, "limit", &key, &[]).await;
                let has_room = match limit.algorithm {
                    // An empty bucket is empty; debt is time, of which a longer burst has room for more.
                    Algorithm::TokenBucket { .. } => false,
                    Algorithm::Gcra { burst } | Algorithm::LeakyMeter { burst } | Algorithm::LeakyShaper { burst } => {
                        100_000 < (burst - 1) * limit.interval_microseconds()
                    }
                    Algorithm::SlidingLog { .. } => quota > 20,
                    // A count of one window says nothing about another.
                    Algorithm::SlidingCounter | Algorithm::FixedWindow | Algorithm::FixedWindowFromFirstHit => {
                        window != 100 || quota > 20
                    }
                };
                assert_eq!(told.allowed == 1, has_room, "{} {key}: {told:?}", engine.name);
                if !has_room {
                    let then = decide_at(&connection, now + told.retry * 1_000, "limit_peek", &key, &[]).await;
                    assert_eq!(then.allowed, 1, "{} {key}: {told:?}, then {then:?}", engine.name);
                }
                let mut admitted = told.allowed;
                for ms in 1..i64::try_from(window).unwrap() {
                    admitted += decide_at(&connection, now + ms * 1_000, "limit", &key, &[]).await.allowed;
                }
                let most = i64::try_from(limit.worst_case()).unwrap();
                assert!(admitted <= most, "{} {key}: {admitted}", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn another_algorithm_begins_with_an_empty_state_whatever_the_old_one_left() {
    for engine in engines() {
        let (_process, connection) = clocked_server(&engine, &[]).await;
        for old in algorithms(3) {
            load_clocked(&connection, &[single("p", old, 3, 100)]).await;
            let key = format!("p:{{{}}}", old.letter());
            while decide_at(&connection, BEGINNING, "limit", &key, &[]).await.allowed == 1 {}
            for new in algorithms(3).into_iter().filter(|new| *new != old) {
                load_clocked(&connection, &[single("p", new, 3, 100)]).await;
                let told = decide_at(&connection, BEGINNING, "limit_peek", &key, &[]).await;
                assert_eq!(told.verdict(), (1, 2), "{} from {old:?} to {new:?}", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn a_limit_of_another_name_begins_empty_and_one_that_comes_back_goes_on_with_what_it_had() {
    for engine in engines() {
        let (_process, connection) = clocked_server(&engine, &[]).await;
        for algorithm in algorithms(3) {
            let key = format!("p:{{{}}}", algorithm.letter());
            let of = |name: &str| policy("p", vec![limit(name, algorithm, 3, 100)]);
            load_clocked(&connection, &[of("old")]).await;
            while decide_at(&connection, BEGINNING, "limit", &key, &[]).await.allowed == 1 {}
            for (name, verdict) in [("new", (1, 2)), ("old", (0, 0))] {
                load_clocked(&connection, &[of(name)]).await;
                let told = decide_at(&connection, BEGINNING + 1, "limit_peek", &key, &[]).await;
                assert_eq!((told.verdict(), told.name.as_str()), (verdict, name), "{} {algorithm:?}", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn other_shards_keep_what_is_counted_and_admit_no_more_than_their_part_may() {
    for engine in engines() {
        let (_process, connection) = clocked_server(&engine, &[]).await;
        for algorithm in algorithms(20) {
            let of = |shards: u32| {
                let limits = vec![limit("only", algorithm, 20, 100)];
                LimitPolicy::parse(LimitPolicyDraft { shards, ..draft("p", limits) }).unwrap()
            };
            for (old, new) in [(1, 2), (2, 1)] {
                let (key, what) =
                    (format!("p:{{{}{old}}}", algorithm.letter()), format!("{} {algorithm:?}", engine.name));
                load_clocked(&connection, &[of(old)]).await;
                while decide_at(&connection, BEGINNING, "limit", &key, &[]).await.allowed == 1 {}
                load_clocked(&connection, &[of(new)]).await;
                let told = decide_at(&connection, BEGINNING + 1, "limit_peek", &key, &[]).await;
                // A bucket that was empty or full is; a count of 10 has room in 20.
                let left = if new == 1 && algorithm.burst().is_none() { 10 - 1 } else { 0 };
                assert_eq!(told.remaining, left, "{what} from {old} shards to {new}");
                let mut admitted = 0;
                for ms in 1..100 {
                    admitted += decide_at(&connection, BEGINNING + ms * 1_000, "limit", &key, &[]).await.allowed;
                }
                let most = of(new).of_one_key().next().unwrap().worst_case();
                assert!(admitted.unsigned_abs() <= most, "{what} from {old} shards to {new}: {admitted}");
            }
        }
    }
}
