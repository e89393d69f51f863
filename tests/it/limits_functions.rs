//! What each function of the limits does, on every engine.

use redis::{Value, cmd};
use redoubt::model::limit_policy::{Algorithm, LONGEST_MILLISECONDS, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::Connection;

use crate::support::engine_process::engines;
use crate::support::function_calls::{call, changes, contents, number, refusal};
use crate::support::limit_calls::{
    Answer, MINUTE, admit, algorithms, counters, decide, draft, limit, one_of_each, peek, policy, rows, server_with,
    single,
};

/// So that no window of the clock ends within a test.
const YEAR: u64 = LONGEST_MILLISECONDS;
const GCRA: Algorithm = Algorithm::Gcra { burst: 3 };
const LOG: Algorithm = Algorithm::SlidingLog { max_entries: 100 };

fn shadow(limit: Limit) -> Limit {
    Limit { mode: LimitMode::Shadow, ..limit }
}

fn parsed(draft: LimitPolicyDraft) -> LimitPolicy {
    LimitPolicy::parse(draft).unwrap()
}

/// Every key has a TTL, of at most this.
async fn expires_within(connection: &Connection, milliseconds: u64) {
    for (key, _) in contents(connection).await {
        let left: i64 = connection.query(cmd("PTTL").arg(&key)).await.unwrap();
        assert!(left > 0 && left.unsigned_abs() <= milliseconds, "{key} has a TTL of {left} ms");
    }
}

#[tokio::test]
async fn every_algorithm_admits_its_quota_and_says_what_is_left_and_when_to_come_back() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &one_of_each(3, YEAR), &[]).await;
        for algorithm in algorithms(3) {
            let key = format!("{}:{{any bytes: \n}} \"é}}", algorithm.letter());
            for left in [2, 1, 0] {
                let answer = admit(&connection, &key, &[]).await;
                assert_eq!(answer.verdict(), (1, left), "{} {key}", engine.name);
                assert_eq!((answer.limit, answer.name.as_str()), (3, "only"));
                assert!(answer.reset > 0);
            }
            let before = (contents(&connection).await, changes(&connection).await);
            let denied = admit(&connection, &key, &[]).await;
            assert_eq!(denied.verdict(), (0, 0), "{} {key}", engine.name);
            assert!(denied.retry > 0 && denied.retry <= denied.reset, "{denied:?}");
            assert_eq!(peek(&connection, &key, &["4"]).await.retry, -1);
            // Nor is the end of a key another.
            let after = (contents(&connection).await, changes(&connection).await);
            assert!(after == before, "{key}: a denied call wrote");

            assert_eq!(decide(&connection, "limit_refund", &key, &["1"]).await.verdict(), (1, 1));
            assert_eq!(admit(&connection, &key, &["2"]).await.verdict(), (0, 1));
            assert_eq!(admit(&connection, &key, &["1"]).await.verdict(), (1, 0));
            expires_within(&connection, 2 * YEAR).await;
            assert_eq!(number(&connection, "limit_reset", &[&key], &[]).await, 1);
            assert_eq!(number(&connection, "limit_reset", &[&key], &[]).await, 0);
            assert_eq!(contents(&connection).await, []);
            let unused = peek(&connection, &key, &["0"]).await;
            assert_eq!((unused.verdict(), unused.reset, unused.retry), ((1, 3), 0, 0), "{} {key}", engine.name);
        }
    }
}

#[tokio::test]
async fn cost_nothing_is_admitted_and_writes_nothing() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &one_of_each(3, YEAR), &[]).await;
        for algorithm in algorithms(3) {
            let key = format!("{}:{{a}}", algorithm.letter());
            assert_eq!(admit(&connection, &key, &["0"]).await.verdict(), (1, 3));
            assert_eq!(contents(&connection).await, []);
            assert_eq!(admit(&connection, &key, &["3"]).await.verdict(), (1, 0));
            let before = contents(&connection).await;
            assert_eq!(admit(&connection, &key, &["0"]).await.verdict(), (1, 0), "{} {key}", engine.name);
            assert!(contents(&connection).await == before);
            number(&connection, "limit_reset", &[&key], &[]).await;
            let used = counters(&connection, &format!("shop/{}", algorithm.letter()), "only").await;
            assert_eq!(used, [1, 0, 0]);
        }
    }
}

#[tokio::test]
async fn several_limits_are_decided_together_and_the_one_that_denies_longest_answers() {
    for engine in engines() {
        let limits = vec![
            limit("second", GCRA, 3, 60 * MINUTE),
            limit("hour", LOG, 5, 60 * MINUTE),
            limit("day", Algorithm::Gcra { burst: 4 }, 24, 24 * 60 * MINUTE),
        ];
        let (_process, connection) = server_with(&engine, &[policy("web", limits)], &[]).await;
        let key = "web:{a}";
        // The smallest share of what is left: 2 of 3, not 4 of 5.
        let first = admit(&connection, key, &[]).await;
        assert_eq!((first.verdict(), first.name.as_str()), ((1, 2), "second"));
        let named = admit(&connection, key, &["2", "day", "hour"]).await;
        assert_eq!((named.verdict(), named.name.as_str()), ((1, 1), "day"));
        let before = contents(&connection).await;
        let denied = admit(&connection, key, &["2"]).await;
        assert_eq!((denied.verdict(), denied.name.as_str()), ((0, 1), "day"));
        assert!(contents(&connection).await == before, "a call that one limit denied consumed another");
        // What fits never is the longest, of whichever order.
        for order in [["second", "day"], ["day", "second"]] {
            let never = admit(&connection, key, &["4", order[0], order[1]]).await;
            assert_eq!((never.allowed, never.retry, never.name.as_str()), (0, -1, "second"));
        }
        assert_eq!(refusal(&connection, "limit", &[key], &["1", "hour", "gone"]).await, "NOLIMIT");
        assert_eq!(refusal(&connection, "limit", &[key], &["1", "hour", "hour"]).await, "BADARG");
        assert_eq!(counters(&connection, "shop/web", "hour").await, [2, 0, 0]);
        assert_eq!(counters(&connection, "shop/web", "day").await, [2, 3, 0]);
        assert_eq!(counters(&connection, "shop/web", "second").await, [1, 2, 0]);
        assert_eq!(number(&connection, "limit_reset", &[key], &["day"]).await, 1);
        assert_eq!(number(&connection, "limit_reset", &[key], &[]).await, 2);
    }
}

#[tokio::test]
async fn a_shadow_admits_what_it_would_deny_says_so_and_hinders_no_other_limit() {
    for engine in engines() {
        let limits = vec![shadow(limit("new", GCRA, 3, 60 * MINUTE)), limit("old", LOG, 5, 60 * MINUTE)];
        let alone = vec![limit("only", GCRA, 3, 60 * MINUTE)];
        let policies =
            [policy("web", limits), parsed(LimitPolicyDraft { mode: LimitMode::Shadow, ..draft("api", alone) })];
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for key in ["web:{a}", "api:{a}"] {
            for _ in 0..3 {
                assert_eq!(admit(&connection, key, &[]).await.allowed, 1);
            }
            for _ in 0..2 {
                let answer = admit(&connection, key, &[]).await;
                assert_eq!((answer.verdict(), answer.retry), ((2, 0), 0), "{} {key}", engine.name);
                assert_eq!(answer.name, if key == "web:{a}" { "new" } else { "only" });
            }
        }
        let denied = admit(&connection, "web:{a}", &[]).await;
        assert_eq!((denied.verdict(), denied.name.as_str()), ((0, 0), "old"));
        assert_eq!(counters(&connection, "shop/web", "new").await, [3, 0, 3]);
        assert_eq!(counters(&connection, "shop/web", "old").await, [5, 1, 0]);
        assert_eq!(counters(&connection, "shop/api", "only").await, [3, 0, 2]);
    }
}

#[tokio::test]
async fn who_keeps_calling_stays_out_only_where_denied_calls_count() {
    for engine in engines() {
        for algorithm in algorithms(3) {
            let counting =
                LimitPolicyDraft { count_denied: true, ..draft("web", vec![limit("only", algorithm, 3, 1_500)]) };
            let (_process, connection) = server_with(&engine, &[parsed(counting)], &[]).await;
            let key = "web:{a}";
            while admit(&connection, key, &[]).await.allowed == 1 {}
            let before = contents(&connection).await;
            let denied = admit(&connection, key, &["2"]).await;
            assert_eq!(denied.verdict(), (0, 0), "{} {algorithm:?}", engine.name);
            assert!(denied.retry > 0);
            // Windows are full whenever they are; the others are full from now on.
            if algorithm.burst().is_some() || algorithm == (Algorithm::SlidingLog { max_entries: 10_000 }) {
                assert!(contents(&connection).await != before, "{} {algorithm:?}", engine.name);
            }
            expires_within(&connection, 3_000).await;
        }
    }
}

/// Of 3 one is used, and 3 are asked for.
#[tokio::test]
async fn a_denied_call_makes_every_kind_of_limit_full_where_denied_calls_count() {
    for engine in engines() {
        for counts in [false, true] {
            let of = |algorithm: Algorithm| {
                let limits = vec![limit("only", algorithm, 3, YEAR)];
                let plain = draft(&algorithm.letter().to_string(), limits);
                parsed(LimitPolicyDraft { count_denied: counts, ..plain })
            };
            let (_process, connection) = server_with(&engine, &algorithms(3).map(of), &[]).await;
            for algorithm in algorithms(3) {
                let (key, what) = (format!("{}:{{a}}", algorithm.letter()), format!("{} {algorithm:?}", engine.name));
                assert_eq!(admit(&connection, &key, &[]).await.verdict(), (1, 2), "{what}");
                let denied = admit(&connection, &key, &["3"]).await;
                assert_eq!(denied.verdict(), (0, if counts { 0 } else { 2 }), "{what}, counts: {counts}");
                assert!(denied.retry > 0, "{what}: {denied:?}");
                let next = peek(&connection, &key, &[]).await;
                assert_eq!(next.verdict(), if counts { (0, 0) } else { (1, 1) }, "{what}, counts: {counts}");
            }
            expires_within(&connection, 2 * YEAR).await;
        }
    }
}

#[tokio::test]
async fn a_denied_call_that_counts_leaves_the_limits_with_room_as_they_were() {
    for engine in engines() {
        let of = |(at, full): (usize, Algorithm)| {
            let roomy = algorithms(9)[(at + 1) % 8];
            let limits = vec![limit("full", full, 3, YEAR), limit("roomy", roomy, 9, YEAR)];
            parsed(LimitPolicyDraft { count_denied: true, ..draft(&full.letter().to_string(), limits) })
        };
        let policies: Vec<LimitPolicy> = algorithms(3).into_iter().enumerate().map(of).collect();
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for algorithm in algorithms(3) {
            let (key, what) = (format!("{}:{{a}}", algorithm.letter()), format!("{} {algorithm:?}", engine.name));
            admit(&connection, &key, &[]).await;
            let state = async || {
                let all = contents(&connection).await;
                let state = all.into_iter().find(|(state, _)| state.starts_with(&key) && state.ends_with("roomy"));
                let left: i64 = connection.query(cmd("PTTL").arg(&state.as_ref().unwrap().0)).await.unwrap();
                (state, left)
            };
            let (before, ends) = state().await;
            let denied = admit(&connection, &key, &["3"]).await;
            assert_eq!((denied.verdict(), denied.name.as_str()), ((0, 0), "full"), "{what}");
            let (after, still_ends) = state().await;
            assert!(after == before && still_ends <= ends, "{what}: {ends} ms, then {still_ends} ms");
            assert_eq!(admit(&connection, &key, &["8", "roomy"]).await.verdict(), (1, 0), "{what}");
        }
    }
}

#[tokio::test]
async fn a_retried_call_with_an_id_is_counted_once_and_given_back_once() {
    for engine in engines() {
        let limits = vec![limit("hour", LOG, 3, 60 * MINUTE), limit("now", GCRA, 3, 60 * MINUTE)];
        let policies = [policy("web", limits), single("api", GCRA, 3, 500)];
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        let key = "web:{a}";
        for _ in 0..3 {
            assert_eq!(admit(&connection, key, &["2", "ID", "order 7\n"]).await.verdict(), (1, 1), "{}", engine.name);
        }
        // What was denied is not remembered: its retry may be admitted.
        assert_eq!(admit(&connection, key, &["2", "ID", "other"]).await.allowed, 0);
        assert_eq!(decide(&connection, "limit_refund", key, &["2", "ID", "never"]).await.verdict(), (1, 1));
        for _ in 0..2 {
            assert_eq!(decide(&connection, "limit_refund", key, &["2", "ID", "order 7\n"]).await.verdict(), (1, 3));
        }
        assert_eq!(admit(&connection, key, &["2", "ID", "other", "hour"]).await.verdict(), (1, 1));
        assert_eq!(admit(&connection, key, &["2", "ID", "other", "hour"]).await.verdict(), (1, 1));
        let remembered: i64 = connection.query(cmd("PTTL").arg("web:{a}i:other")).await.unwrap();
        assert!((1..=300_000).contains(&remembered), "at most five minutes: {remembered}");
        assert_eq!(counters(&connection, "shop/web", "hour").await, [2, 1, 0]);
        admit(&connection, "api:{a}", &["1", "ID", "x"]).await;
        let remembered: i64 = connection.query(cmd("PTTL").arg("api:{a}i:x")).await.unwrap();
        assert!((1..=500).contains(&remembered), "a window: {remembered}");
    }
}

#[tokio::test]
async fn a_shaper_says_how_long_to_wait_also_where_another_limit_is_tighter() {
    for engine in engines() {
        let shaper = Algorithm::LeakyShaper { burst: 10 };
        let both = vec![limit("shape", shaper, 10, 10 * MINUTE), limit("few", LOG, 4, 60 * MINUTE)];
        let ghost = vec![shadow(limit("shape", shaper, 10, 10 * MINUTE))];
        let policies = [single("one", shaper, 10, 10 * MINUTE), policy("two", both), policy("ghost", ghost)];
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for key in ["one:{a}", "two:{a}"] {
            for turn in 0..3 {
                let answer = admit(&connection, key, &[]).await;
                assert_eq!(answer.allowed, 1);
                let wait = turn * 60_000 - answer.retry;
                assert!((0..2_000).contains(&wait), "{} {key}: turn {turn} waits {}", engine.name, answer.retry);
            }
        }
        assert_eq!(admit(&connection, "two:{a}", &[]).await.name, "few");
        for _ in 0..3 {
            assert_eq!(admit(&connection, "ghost:{a}", &[]).await.retry, 0, "a shadow lets nobody wait");
        }
    }
}

#[tokio::test]
async fn each_shard_has_its_part() {
    for engine in engines() {
        let limits =
            vec![limit("a", Algorithm::Gcra { burst: 20 }, 100, 60 * MINUTE), limit("b", LOG, 100, 60 * MINUTE)];
        let sharded = parsed(LimitPolicyDraft { shards: 8, ..draft("web", limits) });
        let (_process, connection) = server_with(&engine, &[sharded], &[]).await;
        assert_eq!(peek(&connection, "web:{a:0}", &["0", "a"]).await.limit, 2);
        assert_eq!(peek(&connection, "web:{a:0}", &["0", "b"]).await.limit, 12);
        assert_eq!(admit(&connection, "web:{a:7}", &["3"]).await.retry, -1);
    }
}

#[tokio::test]
async fn every_policy_is_found_by_its_prefix_and_tells_its_generation() {
    for engine in engines() {
        let policies: Vec<LimitPolicy> = (0..2_000)
            .map(|number| {
                let limits = vec![limit("only", GCRA, 3, MINUTE)];
                parsed(LimitPolicyDraft { generation: number, ..draft(&format!("p{number}"), limits) })
            })
            .collect();
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for number in 0..2_000 {
            let told = call(&connection, "limits_policy", &[], &[&format!("p{number}:")]).await.unwrap();
            assert_eq!(told, Value::BulkString(number.to_string().into_bytes()), "{}", engine.name);
        }
        assert_eq!(admit(&connection, "p1999:{a}", &[]).await.verdict(), (1, 2));
        for absent in ["p2000:", "p1", "p1:\t1 E 0 shop/p1", "", "x\np1:"] {
            assert_eq!(call(&connection, "limits_policy", &[], &[absent]).await.unwrap(), Value::Nil, "{absent:?}");
        }
        assert_eq!(counters(&connection, "shop/p1999", "only").await, [1, 0, 0]);
        assert_eq!(rows(&connection).await.len(), 1, "only what was used");
    }
}

#[tokio::test]
async fn an_answer_is_five_integers_and_a_name() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[single("web", GCRA, 3, MINUTE)], &[]).await;
        let reply = call(&connection, "limit", &["web:{a}"], &[]).await.unwrap();
        let Value::Array(parts) = &reply else { panic!("{reply:?}") };
        assert!(parts[..5].iter().all(|part| matches!(part, Value::Int(_))), "{parts:?}");
        let Answer { allowed: 1, limit: 3, remaining: 2, reset: 1..=20_000, retry: 0, name } = Answer::read(reply)
        else {
            panic!("another answer")
        };
        assert_eq!(name, "only");
    }
}

/// On a layer of another namespace the namespace comes before the prefix: 63 + 1 + 64 characters.
#[tokio::test]
async fn the_longest_prefix_that_a_layer_gives_is_found() {
    for engine in engines() {
        let policy = policy("web", vec![limit("only", GCRA, 3, MINUTE)]);
        let prefix = format!("{}/{}:", "n".repeat(63), "p".repeat(63));
        let (_process, connection) = server_with(&engine, &[policy.with_prefix(prefix.clone())], &[]).await;
        assert_eq!(admit(&connection, &format!("{prefix}{{ada}}"), &[]).await.verdict(), (1, 2), "{}", engine.name);
    }
}

/// Entries are written a thousand at a time.
#[tokio::test]
async fn a_log_has_an_entry_for_each_unit_of_a_cost_however_large_it_is() {
    let log = Algorithm::SlidingLog { max_entries: 10_000 };
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[single("l", log, 10_000, YEAR)], &[]).await;
        let key = "l:{ada}";
        let entries = async || {
            let keys = contents(&connection).await;
            let [(log, _)] = keys.as_slice() else { panic!("{}: {} keys", engine.name, keys.len()) };
            connection.query::<i64>(cmd("LLEN").arg(log)).await.unwrap()
        };
        let mut used = 0;
        for cost in [999, 1_000, 1_001, 2_000, 4_999] {
            used += cost;
            let answer = admit(&connection, key, &[&cost.to_string()]).await;
            assert_eq!((answer.verdict(), entries().await), ((1, 10_000 - used), used), "{} {cost}", engine.name);
        }
        assert_eq!(admit(&connection, key, &["2"]).await.verdict(), (0, 1), "{}", engine.name);
        assert_eq!(entries().await, used, "{}", engine.name);
        decide(&connection, "limit_refund", key, &["2500"]).await;
        assert_eq!(entries().await, used - 2_500, "{}", engine.name);
        assert_eq!(admit(&connection, key, &["2501"]).await.verdict(), (1, 0), "{}", engine.name);
        assert_eq!(entries().await, 10_000, "{}", engine.name);
    }
}
