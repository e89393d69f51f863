//! The programs of `docs/uses/rate-limits.md`, each with its stock client: what they tell a caller, that they ask no server while a denial
//! holds, how they spread a subject over shards, and what they do when the layer does not answer in time or answers an error.

use std::fs;
use std::time::{Duration, Instant};

use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::{server, users};
use serde_json::{Value, json};

use crate::support::bound_layer::{BoundLayer, PREFIX, STORE_USER, connect};
use crate::support::cut_way::{Cut, Way};
use crate::support::engine_process::{Engine, PORT, engines};
use crate::support::limit_programs::{Programs, Running, SOON};

/// The deadline where it has to hold, and how much later an answer may be on a machine that others use too.
const DEADLINE: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_millis(400);
/// Milliseconds of the short limit, no whole number of seconds.
const SHORT: u64 = 2_500;

/// The first limit is of this many milliseconds; the other one never denies.
fn draft(window_milliseconds: u64) -> LimitPolicyDraft {
    let limit = |name: &str, quota, window_milliseconds| Limit {
        name: name.to_owned(),
        algorithm: Algorithm::FixedWindowFromFirstHit,
        quota,
        window_milliseconds,
        mode: LimitMode::Enforce,
    };
    LimitPolicyDraft {
        policy: "shop/api".to_owned(),
        generation: 1,
        prefix: PREFIX.to_owned(),
        mode: LimitMode::Enforce,
        count_denied: false,
        shards: 1,
        limits: vec![limit("short", 3, window_milliseconds), limit("minute", 1_000, 60_000)],
    }
}

async fn layer(engine: &Engine, draft: LimitPolicyDraft) -> BoundLayer {
    let layer = BoundLayer::start_for(engine, UseKind::RateLimitPolicy, PREFIX, false).await;
    follow(&layer, draft).await;
    layer
}

/// Loads a policy, and writes what the binding says of it.
async fn follow(layer: &BoundLayer, draft: LimitPolicyDraft) {
    let operator = connect(&layer.primary, users::OPERATOR).await;
    let of = |it: &Limit| json!({"name": it.name, "quota": it.quota, "windowMilliseconds": it.window_milliseconds});
    let limits = Value::Array(draft.limits.iter().map(of).collect());
    fs::write(layer.binding("limits").join("limits"), limits.to_string()).unwrap();
    fs::write(layer.binding("limits").join("shards"), draft.shards.to_string()).unwrap();
    load(&operator, &limit_library(&[LimitPolicy::parse(draft).unwrap()])).await.unwrap();
}

/// What an answer tells the caller to wait, seconds.
fn retry_after(answer: &Value) -> Option<u64> {
    answer.get("Retry-After").map(|seconds| seconds.as_str().unwrap().parse().unwrap())
}

/// `FCALL`s that the server was sent.
async fn calls(layer: &BoundLayer) -> u64 {
    let text: String = layer.observer.query(cmd("INFO").arg("commandstats")).await.unwrap();
    let stats = text.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    stats.map_or(0, |stats| stats.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_examples_tell_the_limits_and_ask_no_server_while_a_denial_holds() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, draft(SHORT)).await;
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            // On a busy machine a call takes longer than the deadline of the example.
            let mut program = Running::start(name.clone(), program, &layer, SOON);
            let (subject, before) = (format!("ada-{language}"), calls(&layer).await);
            for left in [2, 1, 0] {
                let (answer, _) = program.limit(&subject).await;
                assert_eq!(answer["allowed"], true, "{name}: {answer}");
                assert_eq!(answer["RateLimit-Policy"], r#""short";q=3, "minute";q=1000;w=60"#, "{name}");
                let deciding = answer["RateLimit"].as_str().unwrap();
                let expected = [1, 2, 3].map(|seconds| format!("\"short\";r={left};t={seconds}"));
                assert!(expected.contains(&deciding.to_owned()), "{name}: {deciding}");
                assert_eq!(answer.get("Retry-After"), None, "{name}");
            }
            let (denial, _) = program.limit(&subject).await;
            assert_eq!(denial["allowed"], false, "{name}: {denial}");
            let mut seconds = retry_after(&denial).unwrap();
            assert!((1..=3).contains(&seconds), "{name}: {denial}");
            assert_eq!(calls(&layer).await - before, 4, "{name}");
            // It is told until the denial ends, and then the first call that a server sees is allowed.
            let mut remembered = 0;
            let last = loop {
                let (answer, _) = program.limit(&subject).await;
                if answer["allowed"] == true {
                    break answer;
                }
                // With headers as the server would send, of what is left by now.
                assert_eq!(answer["RateLimit-Policy"], denial["RateLimit-Policy"], "{name}");
                let left = retry_after(&answer).unwrap();
                assert_eq!(answer["RateLimit"], format!("\"short\";r=0;t={left}"), "{name}");
                assert!(left == seconds || left + 1 == seconds, "{name}: {answer} after {seconds}");
                (seconds, remembered) = (left, remembered + 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(seconds, 1, "{name}");
            assert!(remembered > 5, "{name}: {remembered}");
            assert_eq!(calls(&layer).await - before, 5, "{name}: a server was asked while the denial held");
            assert!(last["RateLimit"].as_str().unwrap().starts_with("\"short\";r=2;"), "{name}: {last}");
        }
        let keys = layer.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)), "{keys:?}");
    }
}

#[tokio::test]
async fn the_examples_remember_a_denial_for_calls_that_cost_as_much_and_none_that_never_ends() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, draft(60_000)).await;
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            let mut program = Running::start(name.clone(), program, &layer, SOON);
            // 3 in a minute. Cost, and then: allowed, asked, told when to come back.
            for (subject, cost, allows, asks, waits) in [
                ("ada", 2, true, 1, false),
                ("ada", 2, false, 1, true),
                ("ada", 3, false, 0, true),
                ("ada", 1, true, 1, false),
                ("ada", 2, false, 0, true),
                ("ada", 1, false, 1, true),
                ("ada", 1, false, 0, true),
                ("ada", 2, false, 0, true),
                // It fits never: no time to wait for is told, and none is remembered.
                ("bob", 4, false, 1, false),
                ("bob", 4, false, 1, false),
                ("bob", 3, true, 1, false),
            ] {
                let before = calls(&layer).await;
                let (answer, _) = program.limit_of(cost, &format!("{subject}-{language}")).await;
                let found = (&answer["allowed"], calls(&layer).await - before, retry_after(&answer).is_some());
                assert_eq!(found, (&json!(allows), asks, waits), "{name}: {subject} {cost}: {answer}");
                for header in ["RateLimit", "RateLimit-Policy"] {
                    assert!(answer[header].as_str().unwrap().starts_with("\"short\";"), "{name}: {answer}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_examples_forget_denials_when_they_are_more_than_a_thousand() {
    let programs = Programs::built().await;
    let layer = layer(&engines()[0], draft(60_000)).await;
    for (language, program) in programs.all() {
        let mut program = Running::start(language.to_owned(), program, &layer, SOON);
        let subjects: Vec<String> = (0..=1_000).map(|number| format!("{language}-{number}")).collect();
        let spent = subjects.iter().map(|subject| {
            let mut call = cmd("FCALL");
            call.arg("redoubt_limit").arg(1).arg(format!("{PREFIX}{{{subject}}}")).arg(3).clone()
        });
        layer.observer.query_all(&spent.collect::<Vec<_>>()).await.unwrap();
        let before = calls(&layer).await;
        for subject in &subjects {
            assert_eq!(program.limit(subject).await.0["allowed"], false, "{language} {subject}");
        }
        assert_eq!(calls(&layer).await - before, 1_001, "{language}");
        program.limit(&subjects[1_000]).await;
        assert_eq!(calls(&layer).await - before, 1_001, "{language}: the last one is remembered");
        program.limit(&subjects[0]).await;
        assert_eq!(calls(&layer).await - before, 1_002, "{language}: what is remembered has no bound");
    }
}

#[tokio::test]
async fn the_examples_tell_of_a_shadow_what_they_tell_of_a_limit_that_allows() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, LimitPolicyDraft { mode: LimitMode::Shadow, ..draft(60_000) }).await;
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            let mut program = Running::start(name.clone(), program, &layer, SOON);
            let before = calls(&layer).await;
            for left in [2, 1, 0, 0, 0] {
                let (answer, _) = program.limit(&format!("ada-{language}")).await;
                assert_eq!((&answer["allowed"], retry_after(&answer)), (&json!(true), None), "{name}: {answer}");
                let header = answer["RateLimit"].as_str().unwrap();
                assert!(header.starts_with(&format!("\"short\";r={left};t=")), "{name}: {answer}");
            }
            assert_eq!(calls(&layer).await - before, 5, "{name}: nothing is denied, so nothing is remembered");
        }
    }
}

#[tokio::test]
async fn the_examples_spread_a_subject_over_all_shards_and_get_all_of_its_quota() {
    let programs = Programs::built().await;
    for engine in engines() {
        // Of 24 in a minute each of eight keys has 3.
        let mut sharded = LimitPolicyDraft { shards: 8, ..draft(60_000) };
        sharded.limits[0].quota = 24;
        let layer = layer(&engine, sharded).await;
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            let mut program = Running::start(name.clone(), program, &layer, SOON);
            let (subject, before) = (format!("ada-{language}"), calls(&layer).await);
            let (first, _) = program.limit(&subject).await;
            assert_eq!(first["RateLimit-Policy"], r#""short";q=24;w=60, "minute";q=1000;w=60"#, "{name}");
            // What is left of all shards, as far as one of them tells.
            assert!(first["RateLimit"].as_str().unwrap().starts_with("\"short\";r=16;"), "{name}: {first}");
            let mut allowed = 1;
            for _ in 0..400 {
                allowed += u64::from(program.limit(&subject).await.0["allowed"] == true);
            }
            assert_eq!(allowed, 24, "{name}");
            let asked = calls(&layer).await - before;
            assert_eq!(asked, 24 + 8, "{name}: a denial is remembered for its shard");
            let beginning = format!("{PREFIX}{{{subject}:");
            let mut shards: Vec<String> = layer.keys().await;
            shards.retain(|key| key.starts_with(&beginning) && key.ends_with(":short"));
            assert_eq!(shards.len(), 8, "{name}: {shards:?}");
        }
    }
}

#[tokio::test]
async fn the_examples_obey_on_store_error_when_a_server_refuses_the_call() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, draft(SHORT)).await;
        for (setting, allows) in [("Allow", true), ("Deny", false)] {
            fs::write(layer.binding("limits").join("on-store-error"), setting).unwrap();
            for (language, program) in programs.all() {
                let name = format!("{} {language} {setting}", engine.name);
                // So long that it is the answer that decides.
                let mut program = Running::start(name.clone(), program, &layer, SOON);
                answers(&mut program, &format!("first-{name}")).await;
                for (refusal, directive, value) in
                    [("OOM", "maxmemory", "1"), ("NOREPLICAS", "min-replicas-to-write", "2")]
                {
                    server::config_set(&layer.observer, directive, value).await.unwrap();
                    let subject = format!("{refusal}-{name}");
                    let mut call = cmd("FCALL");
                    call.arg("redoubt_limit").arg(1).arg(format!("{PREFIX}{{{subject}}}"));
                    let refused = layer.observer.query::<redis::Value>(&call).await.unwrap_err();
                    assert!(refused.server_text().is_some_and(|text| text.starts_with(refusal)), "{refused:?}");
                    falls_back(&mut program, &subject, allows).await;
                    server::config_set(&layer.observer, directive, "0").await.unwrap();
                    answers(&mut program, &format!("after-{refusal}-{name}")).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn the_examples_wait_for_a_fraction_of_a_second_where_nothing_else_is_said() {
    let programs = Programs::built().await;
    let layer = layer(&engines()[0], draft(SHORT)).await;
    for (language, program) in programs.all() {
        let mut program = Running::start_as_it_is(language.to_owned(), program, &layer);
        // A subject of its own: the quota is small.
        answers(&mut program, &format!("first-{language}")).await;
        layer.freeze(true);
        let mut fastest = SOON;
        for turn in 0..5 {
            let (answer, took) = program.limit(&format!("{language}-{turn}")).await;
            assert_eq!(answer, json!({"allowed": true}), "{language} after {took:?}");
            fastest = fastest.min(took);
        }
        layer.freeze(false);
        // 50 ms, and more on a machine that others use too; without a deadline it would wait for the layer.
        assert!(fastest < Duration::from_secs(1), "{language}: {fastest:?}");
    }
}

#[tokio::test]
async fn the_examples_obey_on_store_error_when_the_layer_is_slow() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, draft(SHORT)).await;
        for (setting, allows) in [("Allow", true), ("Deny", false)] {
            fs::write(layer.binding("limits").join("on-store-error"), setting).unwrap();
            for (language, program) in programs.all() {
                let name = format!("{} {language} {setting}", engine.name);
                let mut program = Running::start(name.clone(), program, &layer, DEADLINE);
                answers(&mut program, &format!("first-{name}")).await;
                // It stands still.
                layer.freeze(true);
                falls_back(&mut program, &format!("frozen-{name}"), allows).await;
                falls_back(&mut program, &format!("again-{name}"), allows).await;
                layer.freeze(false);
                answers(&mut program, &format!("back-{name}")).await;
                // It answers each step of a new connection in time, and several of them together not.
                cut_connections(&layer).await;
                let crawl = layer.crawl(DEADLINE * 3 / 5);
                in_time(&mut program, &format!("crawling-{name}"), allows).await;
                drop(crawl);
                answers(&mut program, &format!("at-last-{name}")).await;
            }
        }
    }
}

/// Each read of a client is answered in time, and the call as a whole is not: what a Sentinel says comes byte by byte.
#[tokio::test]
async fn the_examples_hold_the_deadline_for_the_call_as_a_whole() {
    let programs = Programs::built().await;
    for engine in engines() {
        let layer = layer(&engine, draft(SHORT)).await;
        let way = Way::to(layer.sentinel_address()).await;
        fs::write(layer.binding("limits").join("sentinels"), format!("{}:{PORT}", way.address)).unwrap();
        for (language, program) in programs.all() {
            let name = format!("{} {language}", engine.name);
            let mut program = Running::start(name.clone(), program, &layer, DEADLINE);
            answers(&mut program, &format!("first-{name}")).await;
            let before = way.paced();
            way.cut(Cut::Pace(DEADLINE / 5));
            cut_connections(&layer).await;
            let took = in_time(&mut program, &format!("paced-{name}"), true).await;
            let paced = way.paced() - before;
            println!("{name}: {took:?}, {paced} bytes by themselves");
            // The client that bounds each read by itself: it met several, none of them late.
            assert!(language != "Python" || paced > 2, "{name}: {paced}: the precondition does not hold");
            way.cut(Cut::Nothing);
            answers(&mut program, &format!("at-last-{name}")).await;
        }
    }
}

/// Ends the connections of the use's user to the primary.
async fn cut_connections(layer: &BoundLayer) {
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("USER").arg(STORE_USER);
    layer.observer.query::<redis::Value>(&kill).await.unwrap();
}

/// Whether the program hears of the layer: not at the first try on a machine that others use too.
async fn answers(program: &mut Running, subject: &str) {
    let began = Instant::now();
    // Each a subject of its own: none comes near its limit.
    for call in 0.. {
        let (answer, _) = program.limit(&format!("{subject}-{call}")).await;
        if answer.get("RateLimit").is_some() {
            assert_eq!(answer["allowed"], true, "{}", program.name);
            return;
        }
        assert!(began.elapsed() < SOON, "{}: {answer}", program.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls of which the quickest counts: a machine that others use too keeps a program waiting now and then, and a call without a
/// deadline is slow each time.
const CALLS: usize = 5;

/// The layer or the setting decides, and no later than the deadline says.
async fn in_time(program: &mut Running, subject: &str, allows: bool) -> Duration {
    quickest(program, subject, |answer| answer.get("RateLimit").is_some() || *answer == json!({"allowed": allows}))
        .await
}

/// The setting decides, and no later than the deadline says.
async fn falls_back(program: &mut Running, subject: &str, allows: bool) {
    quickest(program, subject, |answer| *answer == json!({"allowed": allows})).await;
}

/// Calls until one is answered by the deadline. Every answer is to be one of those expected.
async fn quickest(program: &mut Running, subject: &str, is_expected: impl Fn(&serde_json::Value) -> bool) -> Duration {
    let mut all = Vec::new();
    for call in 0..CALLS {
        let (answer, took) = program.limit(&format!("{subject}-{call}")).await;
        assert!(is_expected(&answer), "{}: {answer} after {took:?}", program.name);
        if took < DEADLINE + SLACK {
            return took;
        }
        all.push(took);
    }
    panic!("{}: {all:?}", program.name);
}
