//! The limits under many connections at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use futures::future::join_all;
use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::limit_policy::{Algorithm, LONGEST_MILLISECONDS, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::Connection;
use tokio::sync::Barrier;

use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::call;
use crate::support::limit_calls::{
    Answer, MINUTE, admit, algorithms, counters, draft, limit, limit_call, one_of_each, policy, server_with,
};

const CALLERS: usize = 64;
const LOG: Algorithm = Algorithm::SlidingLog { max_entries: 100 };

async fn connections(process: &Process, count: usize) -> Vec<Connection> {
    join_all((0..count).map(|_| process.connect())).await
}

/// What all callers together were admitted on a key, calling as fast as they can, 40 times each.
async fn admitted(callers: &[Connection], key: &str) -> i64 {
    let start = Arc::new(Barrier::new(CALLERS));
    let tasks = callers.iter().cloned().map(|caller| {
        let (start, key) = (start.clone(), key.to_owned());
        tokio::spawn(async move {
            start.wait().await;
            let mut admitted = 0;
            for _ in 0..4 {
                let calls: Vec<_> = (0..10).map(|_| limit_call(&key, &[])).collect();
                for reply in caller.query_all(&calls).await.unwrap() {
                    admitted += Answer::read(reply.unwrap()).allowed;
                }
            }
            admitted
        })
    });
    join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_callers_together_are_admitted_what_one_would_be() {
    for engine in engines() {
        // 90 in a year: within the test nothing becomes free.
        let (process, connection) = server_with(&engine, &one_of_each(90, LONGEST_MILLISECONDS), &[]).await;
        let callers = connections(&process, CALLERS).await;
        for algorithm in algorithms(90) {
            let key = format!("{}:{{race}}", algorithm.letter());
            let sum = admitted(&callers, &key).await;
            assert_eq!(sum, 90, "{} {key}", engine.name);
            let [allowed, denied, _] = counters(&connection, &format!("shop/{}", algorithm.letter()), "only").await;
            assert_eq!((allowed, allowed + denied), (sum, 40 * i64::try_from(CALLERS).unwrap()), "{}", engine.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_from_all_of_its_limits_or_from_none() {
    for engine in engines() {
        let limits = vec![
            limit("gcra", Algorithm::Gcra { burst: 60 }, 60, 60 * MINUTE),
            limit("log", LOG, 50, 60 * MINUTE),
            limit("counter", Algorithm::SlidingCounter, 40, 60 * MINUTE),
            limit("window", Algorithm::FixedWindowFromFirstHit, 30, 60 * MINUTE),
        ];
        let (process, connection) = server_with(&engine, &[policy("mix", limits)], &[]).await;
        let callers = connections(&process, CALLERS).await;
        let sum = admitted(&callers, "mix:{race}").await;
        assert_eq!(sum, 30, "{}", engine.name);
        assert_eq!(connection.query::<i64>(cmd("LLEN").arg("mix:{race}l:log")).await.unwrap(), 30);
        assert_eq!(connection.query::<i64>(cmd("GET").arg("mix:{race}h3600000:window")).await.unwrap(), 30);
        for name in ["gcra", "log", "counter", "window"] {
            assert_eq!(counters(&connection, "shop/mix", name).await[0], 30, "{} {name}", engine.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_many_send_at_once_is_counted_once() {
    for engine in engines() {
        let limits = vec![limit("log", LOG, 50, 60 * MINUTE)];
        let (process, connection) = server_with(&engine, &[policy("web", limits)], &[]).await;
        let callers = connections(&process, CALLERS).await;
        let calls = callers.iter().map(|caller| admit(caller, "web:{race}", &["7", "ID", "one"]));
        assert!(join_all(calls).await.iter().all(|answer| answer.verdict() == (1, 43)), "{}", engine.name);
        assert_eq!(connection.query::<i64>(cmd("LLEN").arg("web:{race}l:log")).await.unwrap(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changes_under_fifty_callers_without_an_error_and_holds_at_once() {
    let revision = |number: u64| -> LimitPolicy {
        // The others make the load as long as it is in a layer with many policies.
        let quota = 100 + number;
        let limits =
            vec![limit("login", Algorithm::Gcra { burst: quota }, quota, 60 * MINUTE), limit("log", LOG, 100, MINUTE)];
        let draft = draft("web", limits);
        LimitPolicy::parse(LimitPolicyDraft { generation: i64::try_from(number).unwrap(), ..draft }).unwrap()
    };
    let others: Vec<LimitPolicy> =
        (0..2_000).map(|number| policy(&format!("other{number}"), vec![limit("only", LOG, 9, MINUTE)])).collect();
    for engine in engines() {
        let library = |number| {
            let mut policies = others.clone();
            policies.push(revision(number));
            limit_library(&policies)
        };
        let (process, connection) = server_with(&engine, &[], &[]).await;
        load(&connection, &library(0)).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let (calls, loaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicI64::new(100)));
        let callers = connections(&process, 50).await.into_iter().enumerate().map(|(number, caller)| {
            let (done, calls, loaded) = (done.clone(), calls.clone(), loaded.clone());
            tokio::spawn(async move {
                let key = format!("web:{{{number}}}");
                while !done.load(Ordering::SeqCst) {
                    let least = loaded.load(Ordering::SeqCst);
                    let answer = admit(&caller, &key, &["1", "login"]).await;
                    assert!(answer.limit >= least, "a quota of {} after {least} was loaded", answer.limit);
                    call(&caller, "limit", &[&key], &[]).await.unwrap();
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for number in 1..=10 {
            let library = library(number);
            let seen = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) < seen + 500 {
                tokio::task::yield_now().await;
            }
            load(&connection, &library).await.unwrap();
            loaded.store(100 + i64::try_from(number).unwrap(), Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        assert!(calls.load(Ordering::Relaxed) >= 5_000, "{}", engine.name);
    }
}

/// Half of the callers name a limit that goes, the others one that stays.
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_a_limit_that_is_removed_get_an_error_and_the_others_go_on() {
    let with = |names: &[&str]| {
        let limits = names.iter().map(|name| limit(name, Algorithm::Gcra { burst: 1_000_000 }, 1_000_000, MINUTE));
        limit_library(&[policy("web", limits.collect())])
    };
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[], &[]).await;
        load(&connection, &with(&["stays", "goes"])).await.unwrap();
        let (done, is_gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let calls: Arc<[AtomicUsize; 3]> = Arc::default();
        let callers = connections(&process, 50).await.into_iter().enumerate().map(|(number, caller)| {
            let (done, is_gone, calls) = (done.clone(), is_gone.clone(), calls.clone());
            tokio::spawn(async move {
                let name = if number % 2 == 0 { "stays" } else { "goes" };
                let key = format!("web:{{{number}}}");
                while !done.load(Ordering::SeqCst) {
                    let was_gone = is_gone.load(Ordering::SeqCst);
                    match call(&caller, "limit", &[&key], &["1", name]).await {
                        Ok(_) => {
                            assert!(name == "stays" || !was_gone, "a limit that was removed admits");
                            calls[number % 2].fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let text = error.server_text().unwrap_or_default();
                            assert!(name == "goes" && text.starts_with("NOLIMIT"), "{name}: {text}");
                            calls[2].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        let made = async |which: usize, least: usize| {
            while calls[which].load(Ordering::Relaxed) < least {
                tokio::task::yield_now().await;
            }
        };
        made(0, 500).await;
        made(1, 500).await;
        load(&connection, &with(&["stays"])).await.unwrap();
        is_gone.store(true, Ordering::SeqCst);
        made(2, 500).await;
        let before = calls[0].load(Ordering::Relaxed);
        made(0, before + 500).await;
        done.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
    }
}
