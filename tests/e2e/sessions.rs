//! Claims about session stores: one becomes ready or says why not, its policy changes under its callers, and its sessions are kept
//! as they were promised. Who may use which: `session_access.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use redoubt::api::data_layer::DataLayer;
use redoubt::model::{NodeId, NodeKind};
use serde_json::json;

use crate::failures::delete_all_pods;
use crate::layer::Layer;
use crate::polling::eventually;
use crate::stage::{REDIS_7, SOON, Stage};
use crate::store::{PACE, Store, call, run};

/// A changed policy is on every primary within this time.
const POLICY_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_store_becomes_ready_with_a_layer_of_its_own_and_its_binding_works() {
    let stage = Stage::set("e2e-session-smallest").await;
    let began = Instant::now();
    let store = Store::create(&stage, "web", json!({"idleTimeout": "30m"})).await;
    store.ready().await;
    println!("Ready {:?} after its creation", began.elapsed());
    let layer = store.layer().await;
    assert_eq!(layer.identity.name, "web-sessions");
    let secrets: Api<Secret> = layer.api();
    assert!(secrets.get_opt("web-sessions-redis-app").await.unwrap().is_none(), "nobody has a user for all keys");
    let binding = store.binding().await.unwrap();
    assert_eq!((binding["prefix"].as_str(), binding["wait-replicas"].as_str()), ("web:", "1"));
    assert_eq!(binding["username"], "ss.e2e-session-smallest.web");

    let mut connection = store.connect().await.expect("the binding leads to the primary");
    let expires: i64 =
        run(&mut connection, call("redoubt_session_create", "web:{t}s:1", &["ada", "name", "Ada"])).await.unwrap();
    assert!(expires > 0);
    let found: redis::Value = run(&mut connection, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap();
    assert!(format!("{found:?}").contains("Ada"), "{found:?}");
    let ended: i64 = run(&mut connection, call("redoubt_session_revoke", "web:{t}s:1", &[])).await.unwrap();
    assert_eq!(ended, 1);
    let confirmed: i64 = run(&mut connection, redis::cmd("WAIT").arg(1).arg(1_000).clone()).await.unwrap();
    assert!(confirmed >= 1);
    let found: redis::Value = run(&mut connection, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap();
    assert_eq!(found, redis::Value::Nil);

    // At rest nothing is written, and the status is what the servers prove.
    let mut seen = store.api().get("web").await.unwrap();
    assert_eq!(seen.status.as_ref().unwrap().functions.as_ref().unwrap().generation, 1);
    let (began, mut rests_since) = (Instant::now(), Instant::now());
    // Longer than the layer's slowest pass: nothing must happen, which no condition can announce. On a machine that does much else
    // a server can be late with an answer, which is news; a write without any is none.
    while rests_since.elapsed() < Duration::from_secs(10) {
        let now = store.api().get("web").await.unwrap();
        if now.resource_version() != seen.resource_version() {
            let [before, after] = [&seen, &now].map(|store| serde_json::to_value(&store.status).unwrap());
            assert_ne!(before, after, "a write that says nothing new");
            println!("it does not rest yet: {before} became {after}");
            assert!(began.elapsed() < SOON, "it does not rest");
            (seen, rests_since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    store.api().delete("web", &DeleteParams::default()).await.unwrap();
    let layers: Api<DataLayer> = layer.api();
    eventually("the layer goes with its store", SOON, async || layers.get_opt("web-sessions").await.unwrap().is_none())
        .await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changes_under_fifty_callers_is_on_the_primary_at_once_and_nobody_sees_an_error() {
    let stage = Stage::set("e2e-session-policy").await;
    let store = Store::create(&stage, "web", json!({"idleTimeout": "30m", "touchInterval": "0s"})).await;
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
        eventually("the policy is on the primary", POLICY_WITHIN, async || {
            let question = redis::cmd("FCALL_RO").arg("redoubt_sessions_policies").arg(0).clone();
            let policies: Vec<String> = run(&mut connection, question).await.unwrap();
            policies == ["web:".to_owned(), generation.to_string()]
        })
        .await;
        slowest = slowest.max(began.elapsed());
        store.ready().await;
        // What callers see is the new idle timeout.
        let left: i64 = run(&mut connection, redis::cmd("PTTL").arg("web:{t0}s:1").clone()).await.unwrap();
        let minutes: i64 = idle.trim_end_matches('m').parse().unwrap();
        eventually("a renewed session has the new time", POLICY_WITHIN, async || {
            let left: i64 = run(&mut connection, redis::cmd("PTTL").arg("web:{t0}s:1").clone()).await.unwrap();
            left <= minutes * 60_000 && left > (minutes - 1) * 60_000
        })
        .await;
        println!("{idle}: {left} ms left");
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    println!("{} calls, slowest change {slowest:?}", calls.load(Ordering::Relaxed));
    assert_eq!(errors.load(Ordering::Relaxed), 0);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_no_layer_can_serve_say_why() {
    let stage = Stage::set("e2e-session-refused").await;
    let absent = Store::create(&stage, "absent", json!({"idleTimeout": "30m", "layer": {"name": "nowhere"}})).await;
    absent.refused("LayerNotFound", "nowhere").await;
    let further = json!({"mode": "Standalone", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"}});
    stage.layer("cache", further).await;
    let evicted = Store::create(&stage, "evicted", json!({"idleTimeout": "30m", "layer": {"name": "cache"}})).await;
    evicted.refused("Evicts", "34 of 20,000 sessions").await;
    stage.layer("taken-sessions", json!({"mode": "Standalone"})).await;
    let taken = Store::create(&stage, "taken", json!({"idleTimeout": "30m"})).await;
    taken.refused("NameTaken", "taken-sessions").await;
    // What was missing comes: nobody has to touch the store.
    stage.layer("nowhere", json!({"mode": "Standalone"})).await;
    absent.ready().await;
    stage.strike().await;
}

/// What the application was promised of its sessions.
#[derive(Default)]
struct Promises {
    /// Sessions whose creation a replica confirmed: they live.
    live: Vec<String>,
    /// Sessions whose revocation a replica confirmed: they never come back.
    revoked: Vec<String>,
}

impl Promises {
    /// Creates sessions and ends every other one, each with a replica's confirmation, until `enough`.
    async fn make(&mut self, connection: &mut MultiplexedConnection, tag: &str, enough: usize) {
        for number in 0..enough {
            let key = format!("web:{{{tag}}}s:{number}");
            run::<i64>(connection, call("redoubt_session_create", &key, &[&format!("user-{number}")])).await.unwrap();
            if number % 2 == 0 {
                run::<i64>(connection, call("redoubt_session_revoke", &key, &[])).await.unwrap();
                self.revoked.push(key);
            } else {
                self.live.push(key);
            }
        }
        let confirmed: i64 = run(connection, redis::cmd("WAIT").arg(1).arg(5_000).clone()).await.unwrap();
        assert!(confirmed >= 1, "no replica confirmed");
    }

    async fn hold(&self, connection: &mut MultiplexedConnection, after: &str) {
        for key in &self.live {
            let found: redis::Value = run(connection, call("redoubt_session_get", key, &[])).await.unwrap();
            assert_ne!(found, redis::Value::Nil, "{after}: {key} is gone");
        }
        for key in &self.revoked {
            let found: redis::Value = run(connection, call("redoubt_session_get", key, &[])).await.unwrap();
            assert_eq!(found, redis::Value::Nil, "{after}: {key} lives again");
        }
        println!("{after}: {} live, {} revoked, all as promised", self.live.len(), self.revoked.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_sessions_stay_revoked_and_live_ones_live_through_failover_and_the_loss_of_all_pods() {
    let stage = Stage::set("e2e-session-survival").await;
    let spec = json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Sentinel", "cpu": "20m",
        "engine": {"image": REDIS_7, "pullPolicy": "Never"}}}});
    let store = Store::create(&stage, "web", spec).await;
    store.ready().await;
    let layer = store.layer().await;
    let mut promises = Promises::default();
    let connected = async || {
        let mut connection = None;
        eventually("the binding leads to a primary that takes writes", SOON, async || {
            connection = store.connect().await;
            let Some(connection) = &mut connection else { return false };
            run::<String>(connection, redis::cmd("SET").arg("web:probe").arg(1).clone()).await.is_ok()
        })
        .await;
        connection.unwrap()
    };
    let mut connection = connected().await;
    promises.make(&mut connection, "a", 200).await;

    let primary = primary_of(&layer).await;
    layer.kill(primary, "redis-server");
    let began = Instant::now();
    let mut connection = connected().await;
    println!("writable {:?} after the primary was killed", began.elapsed());
    promises.hold(&mut connection, "the primary killed").await;
    store.ready().await;

    let mut connection = connected().await;
    promises.make(&mut connection, "b", 200).await;
    // The file is synced every second: what a confirmation by replicas does not cover is the loss of all at once.
    eventually("all files hold what was confirmed", SOON, async || {
        let synced: i64 = run(&mut connection, redis::cmd("WAIT").arg(2).arg(1_000).clone()).await.unwrap();
        synced >= 2
    })
    .await;
    let old = layer.pod_uids().await;
    delete_all_pods(&layer).await;
    eventually("every pod is another", SOON, async || {
        let now = layer.pod_uids().await;
        now.len() == old.len() && now.is_disjoint(&old)
    })
    .await;
    let began = Instant::now();
    let mut connection = connected().await;
    println!("writable {:?} after all pods were new", began.elapsed());
    promises.hold(&mut connection, "all pods deleted").await;
    store.ready().await;
    stage.strike().await;
}

/// The primary, by the word of the operator's status: the layer has no user that the test could ask with.
async fn primary_of(layer: &Layer) -> NodeId {
    let name = layer.object().await.status.unwrap().primary.unwrap();
    let ordinal = name.rsplit('-').next().unwrap().parse().unwrap();
    NodeId { kind: NodeKind::Data, ordinal }
}
