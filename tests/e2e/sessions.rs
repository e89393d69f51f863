//! Claims about session stores: what an application sees that has nothing but its binding Secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use redis::aio::MultiplexedConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult,
};
use redoubt::api::data_layer::DataLayer;
use redoubt::api::session_store::SessionStore;
use redoubt::model::{LayerIdentity, NodeId, NodeKind};
use serde_json::{Value, json};

use crate::commands::{eventually, eventually_or, kubectl};
use crate::failures::delete_all_pods;
use crate::layer::Layer;
use crate::stage::{REDIS_7, SOON, Stage};

/// A changed policy is on every primary within this time.
const POLICY_WITHIN: Duration = Duration::from_secs(5);

struct Store {
    client: Client,
    namespace: String,
    name: String,
}

impl Store {
    async fn create(stage: &Stage, name: &str, spec: Value) -> Self {
        let body = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": {"name": name}, "spec": spec});
        let store = Self { client: stage.client.clone(), namespace: stage.namespace.clone(), name: name.to_owned() };
        store.api().create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        store
    }

    fn api(&self) -> Api<SessionStore> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let object = self.api().get(&self.name).await.unwrap();
        let condition = object.status?.conditions.into_iter().find(|condition| condition.type_ == kind)?;
        (condition.observed_generation == object.metadata.generation).then_some((
            condition.status,
            condition.reason,
            condition.message,
        ))
    }

    async fn ready(&self) -> Duration {
        let took = eventually_or("the store is Ready", SOON, async || {
            self.condition("Ready").await.is_some_and(|(status, _, _)| status == "True")
        })
        .await;
        let Some(took) = took else {
            let status = self.api().get(&self.name).await.unwrap().status;
            panic!("not Ready within {SOON:?}\n{}", serde_json::to_string_pretty(&status).unwrap());
        };
        took
    }

    async fn refused(&self, reason: &str, words: &str) {
        eventually(&format!("the store is refused: {reason}"), SOON, async || {
            self.condition("Accepted")
                .await
                .is_some_and(|(status, found, message)| status == "False" && found == reason && message.contains(words))
        })
        .await;
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api().patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn binding(&self) -> Option<BTreeMap<String, String>> {
        let status = self.api().get(&self.name).await.unwrap().status?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(&status.binding?.name).await.unwrap()?;
        let text = |bytes: k8s_openapi::ByteString| String::from_utf8(bytes.0).unwrap();
        Some(secret.data.unwrap_or_default().into_iter().map(|(field, value)| (field, text(value))).collect())
    }

    /// The layer that holds it.
    async fn layer(&self) -> Layer {
        let (namespace, name) = {
            let layer = self.api().get(&self.name).await.unwrap().status.unwrap().layer.unwrap();
            (layer.namespace, layer.name)
        };
        let layers: Api<DataLayer> = Api::namespaced(self.client.clone(), &namespace);
        let uid = layers.get(&name).await.unwrap().uid().unwrap();
        Layer { client: self.client.clone(), identity: LayerIdentity { uid, namespace, name } }
    }

    /// A connection to the primary, as a Sentinel-aware stock client makes it of the binding.
    async fn connect(&self) -> Option<MultiplexedConnection> {
        connect(&self.client, &self.binding().await?).await
    }
}

/// Connects with what a binding says. This machine has no cluster DNS: the Services' names are looked up in the API.
async fn connect(client: &Client, binding: &BTreeMap<String, String>) -> Option<MultiplexedConnection> {
    let login = |user: &str, password: &str| {
        RedisConnectionInfo::default().set_username(&binding[user]).set_password(&binding[password])
    };
    let mut seeds: Vec<ConnectionInfo> = Vec::new();
    for seed in binding["sentinels"].split(',') {
        let (host, port) = seed.split_once(':').unwrap();
        let (service, namespace) = host.strip_suffix(".svc").unwrap().split_once('.').unwrap();
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let address = services.get(service).await.ok()?.spec?.cluster_ip?;
        // The Service of all Sentinels may be headless.
        if address == "None" {
            continue;
        }
        let address = ConnectionAddr::Tcp(address, port.parse().unwrap());
        seeds.push(
            address.into_connection_info().unwrap().set_redis_settings(login("sentinel-username", "sentinel-password")),
        );
    }
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login("username", "password"));
    let mut sentinel = Sentinel::build(seeds).unwrap();
    let asking = sentinel.async_master_for(&binding["master-name"], Some(&node));
    let found = tokio::time::timeout(Duration::from_secs(1), asking).await.ok()?.ok()?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(3)));
    found.get_multiplexed_async_connection_with_config(&config).await.ok()
}

fn call(function: &str, key: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd("FCALL");
    command.arg(function).arg(1).arg(key).arg(arguments);
    command
}

async fn run<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, command: Cmd) -> RedisResult<T> {
    command.query_async(connection).await
}

/// A layer that stores share, small.
async fn shared(stage: &Stage, further: Value) -> Layer {
    stage.layer("shared", further).await
}

fn on_shared(namespace: &str) -> Value {
    json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": namespace}})
}

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
    let status = store.api().get("web").await.unwrap();
    let version = status.resource_version();
    assert_eq!(status.status.unwrap().functions.unwrap().generation, 1);
    let watched = Instant::now();
    // Longer than the layer's slowest pass: nothing must happen, which no condition can announce.
    while watched.elapsed() < Duration::from_secs(10) {
        assert_eq!(store.api().get("web").await.unwrap().resource_version(), version);
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
        let mut connection = store.connect().await.unwrap();
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
            }
        }));
    }
    let mut connection = store.connect().await.unwrap();
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
async fn stores_of_one_layer_cannot_touch_each_others_sessions_and_one_that_goes_takes_its_user_along() {
    let stage = Stage::set("e2e-session-tenants").await;
    let layer = shared(&stage, json!({"access": {"application": false}})).await;
    let web = Store::create(&stage, "web", on_shared(&stage.namespace)).await;
    let api = Store::create(&stage, "api", on_shared(&stage.namespace)).await;
    web.ready().await;
    api.ready().await;
    let (mut of_web, mut of_api) = (web.connect().await.unwrap(), api.connect().await.unwrap());
    run::<i64>(&mut of_web, call("redoubt_session_create", "web:{t}s:1", &["ada"])).await.unwrap();
    run::<i64>(&mut of_api, call("redoubt_session_create", "api:{t}s:1", &["ada"])).await.unwrap();
    for command in [
        call("redoubt_session_get", "web:{t}s:1", &[]),
        call("redoubt_session_revoke", "web:{t}s:1", &[]),
        call("redoubt_session_revoke_all", "web:{t}u:ada", &[]),
        redis::cmd("HGETALL").arg("web:{t}s:1").clone(),
        redis::cmd("DEL").arg("web:{t}s:1").clone(),
        redis::cmd("SCAN").arg(0).clone(),
        redis::cmd("ACL").arg("LIST").clone(),
        redis::cmd("FUNCTION").arg("FLUSH").clone(),
    ] {
        let error = run::<redis::Value>(&mut of_api, command).await.unwrap_err();
        assert_eq!(error.code(), Some("NOPERM"), "{error:?}");
    }
    let overlapping = Store::create(&stage, "third", {
        let mut spec = on_shared(&stage.namespace);
        spec["keyPrefix"] = json!("web:admin:");
        spec
    })
    .await;
    overlapping.refused("PrefixOverlaps", "e2e-session-tenants/web").await;

    // The binding of the one that goes is worth nothing any more; its keys stay until their TTL.
    let old = web.binding().await.unwrap();
    web.api().delete("web", &DeleteParams::default()).await.unwrap();
    eventually("its connections are cut", SOON, async || run::<String>(&mut of_web, redis::cmd("PING")).await.is_err())
        .await;
    eventually("its user is gone", SOON, async || connect(&stage.client, &old).await.is_none()).await;
    run::<redis::Value>(&mut of_api, call("redoubt_session_get", "api:{t}s:1", &[])).await.unwrap();
    // The next in line gets the prefix, and with it what is left under it.
    overlapping.ready().await;
    layer.ready().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_lets_another_namespace_in_and_out_again() {
    let stage = Stage::set("e2e-session-leave").await;
    let other = Stage::set("e2e-session-tenant").await;
    let layer = shared(&stage, json!({})).await;
    layer.ready().await;
    let store = Store::create(&other, "web", on_shared(&stage.namespace)).await;
    store.refused("NotAllowed", "access.namespaces").await;
    assert!(store.binding().await.is_none());

    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}});
    layer.change(json!({"access": {"namespaces": selector}})).await;
    kubectl(&["label", "namespace", &other.namespace, "team=a"]);
    store.ready().await;
    let binding = store.binding().await.unwrap();
    let mut connection = connect(&stage.client, &binding).await.unwrap();
    run::<i64>(&mut connection, call("redoubt_session_create", "web:{t}s:1", &["ada"])).await.unwrap();

    kubectl(&["label", "namespace", &other.namespace, "team-"]);
    store.refused("NotAllowed", "access.namespaces").await;
    eventually("the user is gone", SOON, async || connect(&stage.client, &binding).await.is_none()).await;
    assert!(run::<String>(&mut connection, redis::cmd("PING")).await.is_err(), "its connections are cut");
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &other.namespace);
    assert!(secrets.get_opt("web-session-binding").await.unwrap().is_none(), "the binding is gone");

    layer.change(json!({"access": {"namespaces": {"from": "All", "selector": null}}})).await;
    store.ready().await;
    let mut connection = store.connect().await.unwrap();
    let found: redis::Value = run(&mut connection, call("redoubt_session_get", "web:{t}s:1", &[])).await.unwrap();
    assert_ne!(found, redis::Value::Nil, "its sessions were kept");
    other.strike().await;
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

/// A connection once there is one: eight clients that begin at once on two cores may wait for more than a second.
async fn first_connection(client: &Client, binding: &BTreeMap<String, String>) -> MultiplexedConnection {
    let began = Instant::now();
    loop {
        if let Some(connection) = connect(client, binding).await {
            return connection;
        }
        assert!(began.elapsed() < SOON, "the binding leads to no primary within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client that reads its mounted binding again and again, and moves to new credentials when it shows them.
async fn reader(store: &Store, stop: Arc<AtomicBool>, failures: Arc<AtomicUsize>, calls: Arc<AtomicUsize>) {
    let mut binding = store.binding().await.unwrap();
    let mut connection = first_connection(&store.client, &binding).await;
    let mut looked = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            let now = store.binding().await.unwrap();
            // As a pool does: the old connection is used until the new one stands.
            if now != binding
                && let Some(new) = connect(&store.client, &now).await
            {
                (connection, binding) = (new, now);
            }
        }
        number += 1;
        let key = format!("web:{{t}}s:{}", number % 50);
        let written: RedisResult<()> =
            run(&mut connection, redis::cmd("SETEX").arg(key).arg(60).arg(number).clone()).await;
        calls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = written {
            println!("{error:?}");
            failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_fails_no_command_and_ends_the_old_credentials() {
    let stage = Stage::set("e2e-session-rotation").await;
    let grace = json!({"rotationGrace": "10s"});
    let store = Arc::new(Store::create(&stage, "web", json!({"idleTimeout": "30m", "access": grace})).await);
    store.ready().await;
    let first = store.binding().await.unwrap();
    let mut held = first_connection(&stage.client, &first).await;
    let (stop, failures, calls) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop, failures, calls) =
                (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&failures), Arc::clone(&calls));
            tokio::spawn(async move { reader(&store, stop, failures, calls).await })
        })
        .collect();
    store.change(json!({"access": {"rotation": 1}})).await;
    eventually("the binding shows new credentials", SOON, async || store.binding().await.unwrap() != first).await;
    let second = store.binding().await.unwrap();
    assert_ne!((&first["username"], &first["password"]), (&second["username"], &second["password"]));
    // Two are valid.
    drop(first_connection(&stage.client, &second).await);
    run::<String>(&mut held, redis::cmd("PING")).await.unwrap();
    eventually("the old connection is cut", SOON, async || run::<String>(&mut held, redis::cmd("PING")).await.is_err())
        .await;
    eventually("the old credentials are dead", SOON, async || connect(&stage.client, &first).await.is_none()).await;
    store.ready().await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    println!("{} commands", calls.load(Ordering::Relaxed));
    assert_eq!(failures.load(Ordering::Relaxed), 0);
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
