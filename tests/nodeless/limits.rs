//! Claims about rate limit policies, as an application sees them that has nothing but its binding Secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use serde_json::json;

use crate::disturbances::{FOLLOWED, delete_all_pods};
use crate::limit_exports::exported;
use crate::place;
use crate::polling::eventually;
use crate::store::{PACE, Store, call, run};
use crate::test_namespace::{SOON, TestNamespace};

/// A changed policy is on every primary within this time.
const POLICY_WITHIN: Duration = Duration::from_secs(5);

/// Whether a call of all limits is admitted, and by which limit.
async fn ask(connection: &mut redis::aio::MultiplexedConnection, key: &str) -> (i64, String) {
    let reply: Vec<Value> = run(connection, call("redoubt_limit", key, &[])).await.unwrap();
    (redis::from_redis_value(reply[0].clone()).unwrap(), redis::from_redis_value(reply[5].clone()).unwrap())
}

/// What the status tells of the only limit: name, worst case, of it what begins, interval.
async fn amount_to(policy: &Store<RateLimitPolicy>, expected: (&str, i64, Option<i64>, i64)) {
    let limits = policy.status().await.unwrap().limits;
    let told =
        limits.iter().map(|it| (it.name.as_str(), it.worst_case, it.worst_case_started, it.interval_microseconds));
    assert_eq!(told.collect::<Vec<_>>(), [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_a_layer_of_its_own_decides_and_its_quota_changes_under_fifty_callers_without_an_error() {
    let namespace = TestNamespace::create("nl-limits").await;
    let limits = |quota: i64| json!([{"name": "minute", "algorithm": "FixedWindow", "align": "FirstHit", "quota": quota, "window": "10m"}]);
    let policy: Store<RateLimitPolicy> = Store::make(&namespace, "api", json!({"limits": limits(5)})).await;
    policy.ready().await;
    let binding = policy.binding().await.unwrap();
    assert_eq!((binding["prefix"].as_str(), binding["on-store-error"].as_str()), ("api:", "Allow"));
    let declared: serde_json::Value = serde_json::from_str(&binding["limits"]).unwrap();
    assert_eq!(declared, json!([{"name": "minute", "quota": 5, "windowMilliseconds": 600_000, "burst": 5}]));
    amount_to(&policy, ("minute", 10, None, 120_000_000)).await;
    assert_eq!(policy.status().await.unwrap().functions.unwrap().library, "redoubt_limits");
    let mut connection = policy.connected().await;
    for _ in 0..5 {
        assert_eq!(ask(&mut connection, "api:{ada}").await, (1, "minute".to_owned()));
    }
    assert_eq!(ask(&mut connection, "api:{ada}").await, (0, "minute".to_owned()));
    let other: RedisResult<Value> = run(&mut connection, call("redoubt_limit", "other:{ada}", &[])).await;
    assert_eq!(other.unwrap_err().code(), Some("NOPERM"), "another prefix is not the policy's");
    let script: RedisResult<Value> = run(&mut connection, redis::cmd("EVAL").arg("return 1").arg(0).clone()).await;
    assert_eq!(script.unwrap_err().code(), Some("NOPERM"));

    let (stop, calls, errors) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for number in 0..50 {
        let mut connection = policy.connected().await;
        let (stop, calls, errors) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&errors));
        callers.push(tokio::spawn(async move {
            let key = format!("api:{{caller{number}}}");
            while !stop.load(Ordering::Relaxed) {
                let reply: RedisResult<Vec<Value>> = run(&mut connection, call("redoubt_limit", &key, &[])).await;
                calls.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = reply {
                    println!("{error}");
                    errors.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(PACE).await;
            }
        }));
    }
    for quota in [7, 9] {
        policy.change(json!({"limits": limits(quota)})).await;
        eventually("the quota is in force", POLICY_WITHIN, async || {
            let peek: Cmd = redis::cmd("FCALL_RO").arg("redoubt_limit_peek").arg(1).arg("api:{nobody}").clone();
            let reply: Vec<Value> = run(&mut connection, peek).await.unwrap();
            redis::from_redis_value::<i64>(reply[1].clone()).unwrap() == quota
        })
        .await;
    }
    // What was counted before goes on to count: 5 of 9.
    for _ in 0..4 {
        assert_eq!(ask(&mut connection, "api:{ada}").await.0, 1);
    }
    assert_eq!(ask(&mut connection, "api:{ada}").await.0, 0);
    // What was counted before the library was loaded twice is in status too.
    eventually("status tells what was counted", SOON, async || {
        let counters = policy.status().await.unwrap().counters;
        counters
            .iter()
            .any(|row| row.name.as_deref() == Some("minute") && row.counts["allowed"] >= 5 && row.counts["denied"] >= 1)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 500);
    assert_eq!(errors.load(Ordering::Relaxed), 0);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_limits_share_a_layer_and_cannot_touch_each_other() {
    let namespace = TestNamespace::create("nl-limits-shared").await;
    namespace.layer("shared", json!({"mode": "Sentinel", "memory": {"evictionPolicy": "volatile-ttl"}})).await;
    let place = json!({"name": "shared"});
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m", "layer": place})).await;
    let limit = json!([{"name": "second", "quota": 10, "window": "1s"}]);
    let policy: Store<RateLimitPolicy> = Store::make(&namespace, "api", json!({"layer": place, "limits": limit})).await;
    store.ready().await;
    policy.ready().await;
    let overlapping = json!({"layer": place, "keyPrefix": "web:login:", "limits": limit});
    let refused: Store<RateLimitPolicy> = Store::make(&namespace, "login", overlapping).await;
    refused.refused("PrefixOverlaps", "web:").await;
    let shape = json!([{"name": "shape", "algorithm": "LeakyBucket", "leaky": "Shaper", "quota": 100, "burst": 20, "window": "1m"}]);
    let scripts = json!({"layer": place, "access": {"scripts": true}, "limits": shape, "shards": 4});
    let scripted: Store<RateLimitPolicy> = Store::make(&namespace, "lib", scripts).await;
    scripted.ready().await;
    // Each of four keys has 25 a minute and a burst of 5.
    amount_to(&scripted, ("shape", 4 * (5 + 25), Some(4 * (25 + 1)), 2_400_000)).await;
    let (mut session, mut limiter) = (store.connected().await, policy.connected().await);
    assert!(run::<i64>(&mut session, call("redoubt_session_create", "web:{t}s:1", &["ada"])).await.unwrap() > 0);
    assert_eq!(ask(&mut limiter, "api:{ada}").await.0, 1);
    let denied = |reply: RedisResult<Value>| reply.unwrap_err().code() == Some("NOPERM");
    assert!(denied(run(&mut session, call("redoubt_limit", "api:{ada}", &[])).await));
    assert!(denied(run(&mut limiter, call("redoubt_session_get", "web:{t}s:1", &[])).await));
    assert!(denied(run(&mut limiter, redis::cmd("GET").arg("web:{t}s:1").clone()).await));
    let mut script = scripted.connected().await;
    let eval = |key: &str| redis::cmd("EVAL").arg("return redis.call('INCR', KEYS[1])").arg(1).arg(key).clone();
    assert_eq!(run::<i64>(&mut script, eval("lib:a")).await.unwrap(), 1);
    assert!(denied(run(&mut script, eval("api:a")).await));

    // A policy that is deleted takes its user along, and leaves the sessions alone.
    policy.api().delete("api", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("its user is gone", SOON, async || run::<String>(&mut limiter, redis::cmd("PING")).await.is_err()).await;
    assert!(run::<Value>(&mut session, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap() != Value::Nil);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_its_layer_cannot_keep_is_refused_with_what_was_measured() {
    let namespace = TestNamespace::create("nl-limits-refused").await;
    let cache = json!({"mode": "Standalone", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}});
    namespace.layer("cache", cache).await;
    let limit = json!([{"name": "second", "quota": 10, "window": "1s"}]);
    let policy: Store<RateLimitPolicy> =
        Store::make(&namespace, "api", json!({"layer": {"name": "cache"}, "limits": limit})).await;
    policy.refused("Evicts", "319 of 2,000").await;
    namespace.delete().await;
}

/// What callers of a policy met who connect again after every error.
#[derive(Default)]
struct Met {
    answered: AtomicUsize,
    without_functions: AtomicUsize,
}

impl Met {
    /// Calls without end, with a subject of its own.
    async fn call(&self, policy: &Store<RateLimitPolicy>) {
        loop {
            let Some(mut connection) = policy.connect().await else {
                tokio::time::sleep(PACE).await;
                continue;
            };
            loop {
                match run::<Vec<Value>>(&mut connection, call("redoubt_limit", "api:{other}", &[])).await {
                    Ok(_) => self.answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.to_string().contains("Function not found") => {
                        self.without_functions.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(_) => break,
                };
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// Waits for answers that come after now.
    async fn answers(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("calls are answered", SOON, async || self.answered.load(Ordering::Relaxed) > before + 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_meets_a_primary_without_functions_while_the_operator_is_away() {
    let namespace = TestNamespace::create("nl-limits-alone").await;
    let limits = json!([
        {"name": "enforced", "algorithm": "FixedWindow", "align": "FirstHit", "quota": 5, "window": "10m"},
        {"name": "tried", "mode": "Shadow", "algorithm": "FixedWindow", "align": "FirstHit", "quota": 1, "window": "10m"},
    ]);
    let spec = json!({"limits": limits, "export": {"program": "EnvoyRateLimit"}});
    let policy: Store<RateLimitPolicy> = Store::make(&namespace, "api", spec).await;
    policy.ready().await;
    let layer = policy.layer().await;
    layer.ready().await;
    let admitted = async || {
        let (mut connection, mut admitted) = (policy.connected().await, 0);
        // 2: admitted, and a limit that is only tried would have denied it.
        while ask(&mut connection, "api:{ada}").await.0 != 0 {
            admitted += 1;
        }
        assert_eq!(ask(&mut connection, "api:{ada}").await, (0, "enforced".to_owned()));
        admitted
    };
    assert_eq!(admitted().await, 5, "the limit that is only tried denies nothing");
    place::stop_operator(&namespace.name);
    let met = Met::default();
    let failures = async {
        met.answers().await;
        let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
        layer.kill_engine(primary).await;
        layer.has_a_new_primary(served).await;
        met.answers().await;
        let (old, served) = (layer.pod_uids().await, layer.serving().await);
        delete_all_pods(&layer).await;
        eventually("all pods are others", SOON, async || layer.pod_uids().await.is_disjoint(&old)).await;
        layer.has_a_new_primary(served).await;
        met.answers().await;
        assert_eq!(admitted().await, 5, "a layer that keeps nothing forgets what was counted, not how to count");
    };
    tokio::select! {
        () = failures => {}
        () = met.call(&policy) => unreachable!("callers call without end"),
    }
    assert_eq!(met.without_functions.load(Ordering::Relaxed), 0);
    place::start_operator(&namespace.name);
    layer.ready().await;
    let served_by = layer.wait_until_in_sync().await;
    layer.services_follow(served_by, FOLLOWED).await;
    let (binding, secret) = (policy.binding().await.unwrap(), exported(&namespace, "api").await.unwrap());
    assert_eq!(secret["REDIS_URL"], format!("{}:{}", binding["host"], binding["port"]));
    assert_eq!(secret["REDIS_AUTH"], format!("{}:{}", binding["username"], binding["password"]));
    namespace.delete().await;
}
