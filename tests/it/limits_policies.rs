//! What a rate limit policy may say, and what it comes to in the worst case. Pure.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redoubt::model::limit_policy::{Algorithm, LONGEST_MILLISECONDS, Limit, LimitFault, LimitPolicy, LimitPolicyDraft};

use crate::support::limit_calls::{MINUTE, algorithms, draft, limit, policy};
use crate::support::limit_models::Model;

const GCRA: Algorithm = Algorithm::Gcra { burst: 3 };

/// The fields at fault in a policy of these limits.
fn faults(change: impl FnOnce(&mut LimitPolicyDraft)) -> Vec<String> {
    let mut draft = draft("web", vec![limit("login", GCRA, 100, MINUTE)]);
    change(&mut draft);
    match LimitPolicy::parse(draft) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.into_iter().map(|LimitFault { field, .. }| field).collect(),
    }
}

fn faults_of(algorithm: Algorithm, quota: u64, window_milliseconds: u64) -> Vec<String> {
    faults(|draft| draft.limits = vec![limit("login", algorithm, quota, window_milliseconds)])
}

#[test]
fn what_cannot_be_computed_exactly_is_refused_by_its_field() {
    let log = |max_entries| Algorithm::SlidingLog { max_entries };
    let gcra = |burst| Algorithm::Gcra { burst };
    let shaper = |burst| Algorithm::LeakyShaper { burst };
    let none: [&str; 0] = [];
    assert_eq!(faults(|_| {}), none);
    for (algorithm, quota, window, expected) in [
        (GCRA, 0, MINUTE, "quota"),
        (GCRA, 1_000_000_001, LONGEST_MILLISECONDS, "quota"),
        (GCRA, 101, 1, "quota"),
        (GCRA, 1, 0, "window"),
        (GCRA, 1, LONGEST_MILLISECONDS + 1, "window"),
        (gcra(0), 1, MINUTE, "burst"),
        (gcra(2), 1, LONGEST_MILLISECONDS, "burst"),
        (gcra(u64::MAX), 1, MINUTE, "burst"),
        (gcra(1), u64::MAX, MINUTE, "quota"),
        (gcra(1), 1, u64::MAX, "window"),
        (shaper(1), 1_001, 1_000, "quota"),
        (log(100), 101, MINUTE, "quota"),
        (log(0), 1, MINUTE, "maxEntries"),
        (log(10_001), 1, MINUTE, "maxEntries"),
        (Algorithm::SlidingCounter, 50_000_001, MINUTE, "quota"),
    ] {
        let found = faults_of(algorithm, quota, window);
        assert!(found.contains(&format!("limits[0].{expected}")), "{algorithm:?} {quota} {window}: {found:?}");
    }
    for (algorithm, quota, window) in [
        (GCRA, 100, 1),
        (gcra(1), 1, LONGEST_MILLISECONDS),
        (gcra(1_000_000_000), 1_000_000_000, LONGEST_MILLISECONDS),
        (shaper(1), 1_000, 1_000),
        (log(10_000), 10_000, LONGEST_MILLISECONDS),
        (Algorithm::SlidingCounter, 5_000_000, MINUTE * 10),
        (Algorithm::FixedWindow, 1_000_000_000, LONGEST_MILLISECONDS),
    ] {
        assert_eq!(faults_of(algorithm, quota, window), none, "{algorithm:?} {quota} {window}");
    }
}

#[test]
fn names_prefixes_and_shards_are_refused_all_at_once() {
    for name in ["", "ID", "a b", "-a", "a-", "a|b", "ä", &"a".repeat(33)] {
        assert_eq!(faults(|draft| draft.limits[0].name = name.to_owned()), ["limits[0].name"], "{name:?}");
    }
    for prefix in ["", ":", "web", "we b:", "web:\n:", "{web}:", &format!("{}:", "w".repeat(64))] {
        assert_eq!(faults(|draft| draft.prefix = prefix.to_owned()), ["keyPrefix"], "{prefix:?}");
    }
    let many = |count: usize| (0..count).map(|at| limit(&format!("l{at}"), GCRA, 100, MINUTE)).collect::<Vec<_>>();
    assert_eq!(faults(|draft| draft.limits = many(16)), Vec::<String>::new());
    assert_eq!(faults(|draft| draft.limits = many(17)), ["limits"]);
    assert_eq!(faults(|draft| draft.limits.clear()), ["limits"]);
    assert_eq!(faults(|draft| draft.limits.push(draft.limits[0].clone())), ["limits[1].name"]);
    assert_eq!(faults(|draft| draft.shards = 0), ["shards"]);
    assert_eq!(faults(|draft| draft.shards = 65), ["shards", "limits[0].burst"]);
    assert_eq!(faults(|draft| draft.shards = 3), Vec::<String>::new());
    assert_eq!(faults(|draft| draft.shards = 4), ["limits[0].burst"]);
    let all = faults(|draft| {
        draft.prefix.clear();
        draft.shards = 0;
        draft.limits[0].quota = 0;
        draft.limits[0].window_milliseconds = 0;
    });
    assert_eq!(all, ["keyPrefix", "shards", "limits[0].quota", "limits[0].window"]);
}

#[test]
fn what_is_read_back_is_judged_again() {
    let good = policy("web", vec![limit("login", GCRA, 100, MINUTE)]);
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<LimitPolicy>(&text).unwrap(), good);
    let fault = serde_json::from_str::<LimitPolicy>(&text.replace("\"quota\":100", "\"quota\":0")).unwrap_err();
    assert!(fault.to_string().contains("limits[0].quota is 0, not from 1 to 1000000000"), "{fault}");
}

/// The most of a window that an adversary gets: each attack is the one that the algorithm is weakest against.
#[test]
fn the_worst_case_is_reached_by_an_attack_and_not_passed_by_any_of_many() {
    for (quota, window, burst) in [(20, 100, 7), (7, 100, 10), (100, 1_000, 100)] {
        for algorithm in algorithms(burst) {
            let limit = limit("only", algorithm, quota, window);
            let bound = i64::try_from(limit.worst_case()).unwrap();
            let most = attacks(&limit).iter().map(|attack| attacked(&limit, attack).fullest_window()).max().unwrap();
            assert!(most <= bound, "{limit:?}: {most}");
            // Of buckets the bound counts both ends of the window.
            let ends = i64::from(algorithm.burst().is_some());
            assert!(most >= bound - ends, "{limit:?}: only {most} of {bound}");
        }
    }
}

#[test]
fn what_a_shaper_lets_begin_is_spread_and_never_more_than_is_reported() {
    for (quota, window, burst) in [(20, 100, 7), (7, 100, 10), (100, 1_000, 100)] {
        let limit = limit("only", Algorithm::LeakyShaper { burst }, quota, window);
        let bound = i64::try_from(limit.worst_case_started().unwrap()).unwrap();
        let starts = |attack: &Vec<i64>| attacked(&limit, attack).fullest_window_of_starts();
        let most = attacks(&limit).iter().map(starts).max().unwrap();
        // The bound counts both ends of the window.
        assert!((bound - 1..=bound).contains(&most), "{limit:?}: {most} of {bound}");
    }
}

/// A limit that was asked for 1 at these moments.
fn attacked(limit: &Limit, moments: &[i64]) -> Model {
    let mut model = Model::new(limit);
    for now in moments {
        model.decide(*now, 1);
    }
    model
}

/// Moments, in microseconds, at which an adversary calls.
fn attacks(limit: &Limit) -> Vec<Vec<i64>> {
    let window = i64::try_from(limit.window_milliseconds).unwrap() * 1_000;
    let begin = 1_000 * window;
    let quota = usize::try_from(limit.quota).unwrap();
    let flood = |moment: i64| std::iter::repeat_n(moment, 3 * quota);
    let dense = |from: i64, to: i64| (from..to).step_by(100);
    vec![
        // All at once, and then as fast as they come.
        flood(begin).chain(dense(begin, begin + 2 * window)).collect(),
        // At both sides of a window's end.
        flood(begin + window - 1).chain(flood(begin + window)).collect(),
        // One late in the first millisecond, the others at the end of its window, and all again after it.
        std::iter::once(begin + 999).chain(flood(begin + window - 1)).chain(flood(begin + window)).collect(),
        // All at the end of a window, and in the next one as many as that lets, as late as they may be.
        flood(begin + window - 1).chain(dense(begin + window, begin + 3 * window)).collect(),
        random(begin, window, quota),
    ]
}

fn random(begin: i64, window: i64, quota: usize) -> Vec<i64> {
    let mut random = StdRng::seed_from_u64(5);
    let mut now = begin;
    let mut next = || {
        now += if random.random_range(0..50) == 0 {
            random.random_range(0..2 * window)
        } else {
            random.random_range(0..200)
        };
        now
    };
    (0..200 * quota).map(|_| next()).collect()
}

#[test]
fn numbers_are_reported_for_a_subject_with_all_its_shards() {
    let limits = vec![
        limit("gcra", Algorithm::Gcra { burst: 20 }, 100, MINUTE),
        limit("log", Algorithm::SlidingLog { max_entries: 100 }, 100, MINUTE),
        limit("counter", Algorithm::SlidingCounter, 100, MINUTE),
        limit("clock", Algorithm::FixedWindow, 100, MINUTE),
        limit("hit", Algorithm::FixedWindowFromFirstHit, 100, MINUTE),
        limit("shape", Algorithm::LeakyShaper { burst: 20 }, 100, MINUTE),
    ];
    let one = LimitPolicy::parse(draft("web", limits.clone())).unwrap();
    assert_eq!(one.worst_cases().collect::<Vec<_>>(), [120, 100, 199, 200, 200, 120]);
    let eight = LimitPolicy::parse(LimitPolicyDraft { shards: 8, ..draft("web", limits.clone()) }).unwrap();
    // 12 a minute and a burst of 2 for each key.
    assert_eq!(eight.worst_cases().collect::<Vec<_>>(), [112, 96, 184, 192, 192, 112]);
    assert_eq!(limits[0].interval_microseconds(), 600_000);
    assert_eq!(limit("odd", GCRA, 7, 1).interval_microseconds(), 143);
    assert_eq!(one.worst_cases_started().collect::<Vec<_>>(), [None, None, None, None, None, Some(101)]);
    // 12 a minute for each key, and one more.
    assert_eq!(eight.worst_cases_started().last(), Some(Some(8 * 13)));
}
