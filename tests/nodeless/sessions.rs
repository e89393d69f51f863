//! Claims about session stores: one says why it is not ready, and its policy changes under its callers. Who may use which:
//! `session_access.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::RedisResult;
use serde_json::json;

use crate::polling::eventually;
use crate::store::{PACE, Store, call, run};
use crate::test_namespace::{SOON, TestNamespace};

/// A changed policy is on every primary within this time.
const POLICY_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changes_under_fifty_callers_is_on_the_primary_at_once_and_no_caller_sees_an_error() {
    let namespace = TestNamespace::create("nl-session-policy").await;
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m", "touchInterval": "0s"})).await;
    store.ready().await;
    let (stop, calls, errors) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for number in 0..50 {
        let mut connection = store.connected().await;
        let key = format!("web:{{t{number}}}s:1");
        run::<i64>(&mut connection, call("redoubt_session_create", &key, &["ada"])).await.unwrap();
        let (stop, calls, errors) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&errors));
        callers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let found: RedisResult<redis::Value> =
                    run(&mut connection, call("redoubt_session_get", &key, &[])).await;
                calls.fetch_add(1, Ordering::Relaxed);
                if !found.as_ref().is_ok_and(|found| *found != redis::Value::Nil) {
                    println!("{found:?}");
                    errors.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(PACE).await;
            }
        }));
    }
    let mut connection = store.connected().await;
    let mut slowest = Duration::ZERO;
    for (generation, idle) in [(2, "20m"), (3, "10m"), (4, "5m")] {
        let began = Instant::now();
        store.change(json!({"idleTimeout": idle})).await;
        // What callers see is the new idle timeout.
        let minutes: i64 = idle.trim_end_matches('m').parse().unwrap();
        eventually("a renewed session has the new time", POLICY_WITHIN, async || {
            let left: i64 = run(&mut connection, redis::cmd("PTTL").arg("web:{t0}s:1").clone()).await.unwrap();
            left <= minutes * 60_000 && left > (minutes - 1) * 60_000
        })
        .await;
        slowest = slowest.max(began.elapsed());
        store.ready().await;
        let functions = store.api().get("web").await.unwrap().status.unwrap().functions.unwrap();
        assert_eq!(functions.generation, generation);
        println!("{idle}: after {:?}", began.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    println!("{} calls, slowest change {slowest:?}", calls.load(Ordering::Relaxed));
    assert_eq!(errors.load(Ordering::Relaxed), 0);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_no_layer_can_serve_say_why() {
    let namespace = TestNamespace::create("nl-session-refused").await;
    let absent = Store::create(&namespace, "absent", json!({"idleTimeout": "30m", "layer": {"name": "nowhere"}})).await;
    absent.refused("LayerNotFound", "nowhere").await;
    let further = json!({"mode": "Standalone", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}});
    namespace.layer("cache", further).await;
    let evicted = Store::create(&namespace, "evicted", json!({"idleTimeout": "30m", "layer": {"name": "cache"}})).await;
    evicted.refused("Evicts", "34 of 20,000 sessions").await;
    namespace.layer("taken-sessions", json!({"mode": "Standalone"})).await;
    let taken = Store::create(&namespace, "taken", json!({"idleTimeout": "30m"})).await;
    taken.refused("NameTaken", "taken-sessions").await;
    // What was missing comes: nobody has to touch the store.
    namespace.layer("nowhere", json!({"mode": "Standalone"})).await;
    absent.ready().await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_wrong_edit_of_a_dedicated_layer_is_reported_at_the_store_which_serves_on() {
    let namespace = TestNamespace::create("nl-store-edit").await;
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m"})).await;
    store.ready().await;
    let degraded = async || {
        let status = store.api().get("web").await.unwrap().status.unwrap();
        let of = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind).unwrap().clone();
        (of("Degraded"), of("Ready").status)
    };
    store.change(json!({"layer": {"dedicated": {"mode": "Sentinel", "memory": {"limit": "20Mi"}}}})).await;
    eventually("the store says what its layer refuses", SOON, async || {
        let (told, ready) = degraded().await;
        assert_eq!(ready, "True", "it serves on");
        told.reason == "LayerRefused" && told.message.contains("spec.memory.limit")
    })
    .await;
    store.change(json!({"layer": {"dedicated": {"memory": {"limit": "512Mi"}}}})).await;
    eventually("the correction is told too", SOON, async || degraded().await.0.status == "False").await;
    store.ready().await;
    namespace.delete().await;
}
