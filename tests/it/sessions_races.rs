//! Many callers at once: what must hold at every instant, each with a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use redis::{Value, cmd};
use redoubt::dataplane::{load, session_library};
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::redis::Connection;
use tokio::sync::Barrier;

use crate::support::engine_process::{Process, engines};
use crate::support::session_calls::{call, counter, list, number, policy, read, server_with};

const CALLERS: usize = 64;

async fn connections(process: &Process, count: usize) -> Vec<Connection> {
    join_all((0..count).map(|_| process.connect())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_save_brings_back_a_session_that_was_revoked() {
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let callers = connections(&process, CALLERS).await;
        for round in 0..10 {
            let key = format!("web:{{t}}s:{round}");
            number(&connection, "session_create", &[&key], &["bob"]).await;
            let start = Arc::new(Barrier::new(CALLERS + 1));
            let revoked = Arc::new(AtomicBool::new(false));
            let saves = callers.iter().cloned().map(|caller| {
                let (start, revoked, key) = (start.clone(), revoked.clone(), key.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    let (mut saved, mut refused) = (0, 0);
                    // Each goes on until it was refused after the revoke was acknowledged.
                    while refused < 3 {
                        let was_revoked = revoked.load(Ordering::SeqCst);
                        let answer = call(&caller, "session_set", &[&key], &["", "1", "cart", "3"]).await;
                        if answer.is_ok() {
                            assert!(!was_revoked, "a save succeeded after the revoke");
                            saved += 1;
                        } else {
                            assert_eq!(read(&caller, "session_get", &key).await, None);
                            refused += 1;
                        }
                    }
                    saved
                })
            });
            let saves: Vec<_> = saves.collect();
            start.wait().await;
            // Not before some were saved, so that the revoke falls among them.
            while read(&connection, "session_get_ro", &key).await.unwrap().version < 100 {}
            assert_eq!(number(&connection, "session_revoke", &[&key], &[]).await, 1);
            revoked.store(true, Ordering::SeqCst);
            let mut total = 0;
            for save in saves {
                total += save.await.unwrap();
            }
            assert!(total >= 99);
            assert_eq!(read(&connection, "session_get", &key).await, None);
            assert_eq!(connection.query::<i64>(&cmd("DBSIZE")).await.unwrap(), 0, "{}", engine.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_never_has_more_sessions_than_the_cap() {
    for engine in engines() {
        for (on_exceed, refused, evicted) in [(OnExceed::EvictOldest, 0, 59), (OnExceed::Reject, 59, 0)] {
            let capped = SessionPolicy { max_per_user: Some(5), on_exceed, ..policy("web") };
            let (process, connection) = server_with(&engine, &[capped], &[]).await;
            let (watcher, done) = (process.connect().await, Arc::new(AtomicBool::new(false)));
            let over = done.clone();
            let watch = tokio::spawn(async move {
                let mut most = 0;
                while !over.load(Ordering::SeqCst) {
                    assert!(list(&watcher, "web:{t}u:bob").await.len() <= 5);
                    most = most.max(watcher.query::<i64>(&cmd("DBSIZE")).await.unwrap());
                }
                most
            });
            let start = Arc::new(Barrier::new(CALLERS));
            let logins = connections(&process, CALLERS).await.into_iter().enumerate().map(|(number, caller)| {
                let start = start.clone();
                tokio::spawn(async move {
                    start.wait().await;
                    call(&caller, "session_create", &[&format!("web:{{t}}s:{number}")], &["bob"]).await.is_err()
                })
            });
            let outcomes = join_all(logins).await.into_iter().map(Result::unwrap);
            assert_eq!(outcomes.filter(|is_refused| *is_refused).count(), refused, "{}", engine.name);
            done.store(true, Ordering::SeqCst);
            assert!(watch.await.unwrap() <= 6, "five sessions and their index");
            assert_eq!(list(&connection, "web:{t}u:bob").await.len(), 5);
            assert_eq!(connection.query::<i64>(&cmd("DBSIZE")).await.unwrap(), 6);
            assert_eq!(counter(&connection, "shop/web", "evicted").await, evicted);
            assert_eq!(counter(&connection, "shop/web", "created").await, 64 - i64::try_from(refused).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_parallel_rotations_wins_and_nothing_saved_is_lost() {
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        number(&connection, "session_create", &["web:{t}s:old"], &["bob"]).await;
        let start = Arc::new(Barrier::new(CALLERS));
        let callers = connections(&process, CALLERS).await.into_iter().enumerate().map(|(number, caller)| {
            let start = start.clone();
            tokio::spawn(async move {
                start.wait().await;
                let new = format!("web:{{t}}s:new{number}");
                let rotated = call(&caller, "session_rotate", &["web:{t}s:old", &new], &["60000"]).await;
                let field = format!("field{number}");
                call(&caller, "session_set", &["web:{t}s:old"], &["", "1", &field, "x"]).await.unwrap();
                rotated.is_ok().then_some(new)
            })
        });
        let winners: Vec<String> = join_all(callers).await.into_iter().filter_map(Result::unwrap).collect();
        let [winner] = &winners[..] else { panic!("{winners:?}") };
        assert_eq!(read(&connection, "session_get", winner).await.unwrap().fields.len(), CALLERS);
        assert_eq!(list(&connection, "web:{t}u:bob").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_is_loaded_a_thousand_times_under_load_and_no_caller_sees_it() {
    for engine in engines() {
        let revision = |generation| session_library(&[SessionPolicy { generation, ..policy("web") }]);
        let (process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers = connections(&process, 8).await.into_iter().enumerate().map(|(number, caller)| {
            let (done, calls) = (done.clone(), calls.clone());
            tokio::spawn(async move {
                let key = format!("web:{{t}}s:{number}");
                while !done.load(Ordering::SeqCst) {
                    call(&caller, "session_create", &[&key], &["bob", "a", "1"]).await.unwrap();
                    call(&caller, "session_set", &[&key], &["", "1", "a", "2"]).await.unwrap();
                    assert!(read(&caller, "session_get", &key).await.is_some());
                    assert_eq!(call(&caller, "session_revoke", &[&key], &[]).await.unwrap(), Value::Int(1));
                    calls.fetch_add(4, Ordering::Relaxed);
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for generation in 1..=1_000 {
            load(&connection, &revision(generation)).await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        assert!(calls.load(Ordering::Relaxed) > 1_000, "{} calls are no load", calls.load(Ordering::Relaxed));
        let policies: Vec<String> =
            redis::from_redis_value(call(&connection, "sessions_policies", &[], &[]).await.unwrap()).unwrap();
        assert_eq!(policies, ["web:", "1000"]);
    }
}
