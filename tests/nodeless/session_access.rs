//! Claims about who may use a session store: its own users and no others, of the namespaces that its layer lets in, with
//! credentials that are rotated under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use redoubt::redis::{Connection, Endpoint};
use serde_json::{Value, json};

use crate::commands::kubectl;
use crate::faults::Fault;
use crate::layer::Layer;
use crate::place;
use crate::polling::eventually;
use crate::store::{PACE, Store, call, connect, run};
use crate::tenants::accepted_after_an_audit;
use crate::test_namespace::{SOON, TestNamespace};

/// A layer that stores share, small.
async fn shared(namespace: &TestNamespace, further: Value) -> Layer {
    namespace.layer("shared", further).await
}

fn on_shared(namespace: &str) -> Value {
    json!({"idleTimeout": "30m", "layer": {"name": "shared", "namespace": namespace}})
}

/// How long a key outlives its store: longer than an audit takes to find an empty prefix.
const OUTLIVES: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_one_layer_cannot_touch_each_others_sessions_and_one_that_goes_takes_its_user_along() {
    let namespace = TestNamespace::create("nl-session-tenants").await;
    let layer = shared(&namespace, json!({"access": {"application": false}})).await;
    let web = Store::create(&namespace, "web", on_shared(&namespace.name)).await;
    let api = Store::create(&namespace, "api", on_shared(&namespace.name)).await;
    web.ready().await;
    api.ready().await;
    let (mut of_web, mut of_api) = (web.connected().await, api.connected().await);
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
    let overlapping = Store::create(&namespace, "third", {
        let mut spec = on_shared(&namespace.name);
        spec["keyPrefix"] = json!("web:admin:");
        spec
    })
    .await;
    overlapping.refused("PrefixOverlaps", "nl-session-tenants/web").await;

    // The binding of the one that goes is worth nothing any more; its keys stay until their TTL.
    let old = web.binding().await.unwrap();
    run::<i64>(&mut of_web, redis::cmd("DEL").arg("web:{t}s:1").arg("web:{t}u:ada").clone()).await.unwrap();
    let began = Instant::now();
    let last = redis::cmd("SET").arg("web:{t}last").arg(1).arg("EX").arg(OUTLIVES.as_secs()).clone();
    run::<String>(&mut of_web, last).await.unwrap();
    web.api().delete("web", &DeleteParams::default()).await.unwrap();
    eventually("its connections are cut", SOON, async || run::<String>(&mut of_web, redis::cmd("PING")).await.is_err())
        .await;
    eventually("its user is gone", SOON, async || connect(&namespace.client, &old).await.is_none()).await;
    run::<redis::Value>(&mut of_api, call("redoubt_session_get", "api:{t}s:1", &[])).await.unwrap();
    // The next in line gets the prefix once nothing is left under it.
    overlapping.refused("PrefixOverlaps", "whose keys may still be there").await;
    accepted_after_an_audit(&namespace.name, &overlapping).await;
    overlapping.ready().await;
    assert!(began.elapsed() > OUTLIVES, "a key was still there");
    layer.ready().await;
    namespace.delete().await;
}

/// Each of a store's Sentinels takes its user at the very moment at which it is Ready, whether its layer is new or serves already. The
/// API server answers late, so that a status of the layer that is written after that of the store would be missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_ready_once_each_sentinel_that_runs_knows_its_user_and_its_layer_was_ready() {
    let namespace = TestNamespace::create("nl-session-first").await;
    place::faults(&namespace.name).set(Fault::Slow(Duration::from_millis(200)));
    let own = Store::create(&namespace, "own", json!({"idleTimeout": "30m"})).await;
    own.ready().await;
    let layer = own.layer().await;
    assert!(layer.is("Ready").await, "a store was Ready before its layer");
    log_in_to_each_sentinel(&own, &layer).await;
    place::faults(&namespace.name).set(Fault::None);
    let layer = shared(&namespace, json!({})).await;
    layer.ready().await;
    for name in ["a", "b", "c"] {
        let store = Store::create(&namespace, name, on_shared(&namespace.name)).await;
        store.ready().await;
        log_in_to_each_sentinel(&store, &layer).await;
    }
    namespace.delete().await;
}

/// Once and without a second try, with the credentials of the binding.
async fn log_in_to_each_sentinel(store: &Store, layer: &Layer) {
    let binding = store.binding().await.unwrap();
    let sentinels = layer.sentinels().await;
    assert_eq!(sentinels.len(), 3);
    for endpoint in sentinels {
        let node = endpoint.address.clone();
        let (username, password) = (binding["sentinel-username"].clone(), binding["sentinel-password"].as_str());
        let endpoint = Endpoint { username, password: redoubt::redis::Secret::new(password), ..endpoint };
        let connection = Connection::open(&endpoint).await.unwrap_or_else(|error| panic!("{node}: {error:?}"));
        let mut asked = redis::cmd("SENTINEL");
        asked.arg("GET-MASTER-ADDR-BY-NAME").arg(&binding["master-name"]);
        connection.query::<Vec<String>>(&asked).await.unwrap_or_else(|error| panic!("{node}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_lets_another_namespace_in_and_out_again() {
    let namespace = TestNamespace::create_with("nl-session-leave", place::operator_of_all().await).await;
    let other = namespace.another("nl-session-tenant").await;
    let layer = shared(&namespace, json!({})).await;
    layer.ready().await;
    let store = Store::create(&other, "web", on_shared(&namespace.name)).await;
    store.refused("NotAllowed", "access.namespaces").await;
    assert!(store.binding().await.is_none());

    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}});
    layer.change(json!({"access": {"namespaces": selector}})).await;
    kubectl(&["label", "namespace", &other.name, "team=a"]);
    store.ready().await;
    let binding = store.binding().await.unwrap();
    let mut connection = connect(&namespace.client, &binding).await.unwrap();
    run::<i64>(&mut connection, call("redoubt_session_create", "nl-session-tenant/web:{t}s:1", &["ada"]))
        .await
        .unwrap();

    kubectl(&["label", "namespace", &other.name, "team-"]);
    store.refused("NotAllowed", "access.namespaces").await;
    eventually("the user is gone", SOON, async || connect(&namespace.client, &binding).await.is_none()).await;
    assert!(run::<String>(&mut connection, redis::cmd("PING")).await.is_err(), "its connections are cut");
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &other.name);
    assert!(secrets.get_opt("web-session-binding").await.unwrap().is_none(), "the binding is gone");

    layer.change(json!({"access": {"namespaces": {"from": "All", "selector": null}}})).await;
    store.ready().await;
    let mut connection = store.connected().await;
    let found: redis::Value =
        run(&mut connection, call("redoubt_session_get", "nl-session-tenant/web:{t}s:1", &[])).await.unwrap();
    assert_ne!(found, redis::Value::Nil, "its sessions were kept");
    other.delete().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_moves_to_the_name_that_is_chosen_and_overwrites_no_other_secret() {
    let namespace = TestNamespace::create("nl-session-name").await;
    let store =
        Store::create(&namespace, "web", json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone"}}}))
            .await;
    store.ready().await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let names = async || {
        let shown = store.status().await.unwrap().binding.map(|binding| binding.name);
        let found =
            secrets.list(&ListParams::default().labels("app.kubernetes.io/component=session-store")).await.unwrap();
        (shown, found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>())
    };
    let is_alone = async |name: &str| names().await == (Some(name.to_owned()), vec![name.to_owned()]);
    assert!(is_alone("web-session-binding").await, "{:?}", names().await);
    let binding = store.binding().await.unwrap();

    store.change(json!({"binding": {"secretName": "chosen"}})).await;
    eventually("the binding has moved", SOON, async || is_alone("chosen").await).await;
    assert_eq!(store.binding().await.unwrap(), binding, "with the same credentials");
    store.ready().await;

    let foreign = json!({"metadata": {"name": "taken"}, "stringData": {"own": "data"}});
    let foreign = secrets.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
    store.change(json!({"binding": {"secretName": "taken"}})).await;
    store.refused("NameTaken", "the binding stays in Secret chosen").await;
    assert!(is_alone("chosen").await, "{:?}", names().await);
    assert_eq!(secrets.get("taken").await.unwrap().metadata.resource_version, foreign.metadata.resource_version);

    store.change(json!({"binding": null})).await;
    eventually("the binding is back", SOON, async || is_alone("web-session-binding").await).await;
    assert_eq!(store.binding().await.unwrap(), binding);
    store.ready().await;
    namespace.delete().await;
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
        tokio::time::sleep(PACE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_fails_no_command_and_ends_the_old_credentials() {
    let namespace = TestNamespace::create("nl-session-rotation").await;
    let grace = json!({"rotationGrace": "10s"});
    let store = Arc::new(Store::create(&namespace, "web", json!({"idleTimeout": "30m", "access": grace})).await);
    store.ready().await;
    let first = store.binding().await.unwrap();
    let mut held = first_connection(&namespace.client, &first).await;
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
    drop(first_connection(&namespace.client, &second).await);
    run::<String>(&mut held, redis::cmd("PING")).await.unwrap();
    eventually("the old connection is cut", SOON, async || run::<String>(&mut held, redis::cmd("PING")).await.is_err())
        .await;
    eventually("the old credentials are dead", SOON, async || connect(&namespace.client, &first).await.is_none()).await;
    store.ready().await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    println!("{} commands", calls.load(Ordering::Relaxed));
    assert_eq!(failures.load(Ordering::Relaxed), 0);
    namespace.delete().await;
}

/// The condition of a type, as status and reason.
async fn condition(store: &Store, kind: &str) -> (String, String) {
    let status = store.api().get("web").await.unwrap().status.unwrap();
    let found = status.conditions.iter().find(|it| it.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[tokio::test]
async fn a_binding_that_is_deleted_or_edited_in_a_rotation_ends_and_revives_no_credentials() {
    let namespace = TestNamespace::create("nl-rotation-binding").await;
    let grace = json!({"rotationGrace": "1h"});
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m", "access": grace})).await;
    store.ready().await;
    let first = store.binding().await.unwrap();
    let mut held = first_connection(&namespace.client, &first).await;
    store.change(json!({"access": {"rotation": 1}})).await;
    let is_told = async || {
        let status = store.api().get("web").await.unwrap().status.unwrap();
        status.rotation.is_some_and(|it| (it.shown, it.previous) == (1, Some(0)))
    };
    eventually("the status tells of both", SOON, is_told).await;
    let second = store.binding().await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let annotations = async || {
        let secret = secrets.get_opt("web-session-binding").await.unwrap()?;
        let all = secret.metadata.annotations.unwrap_or_default();
        Some(
            ["rotation", "previous-rotation", "rotated-at"]
                .map(|name| all.get(&format!("redoubt.dev/{name}")).cloned()),
        )
    };
    let whole = annotations().await.unwrap();
    assert_eq!(whole[..2], [Some("1".to_owned()), Some("0".to_owned())]);
    secrets.delete("web-session-binding", &DeleteParams::default()).await.unwrap();
    eventually("the binding is back, and names both", SOON, async || annotations().await.as_ref() == Some(&whole))
        .await;
    assert_eq!(store.binding().await.unwrap(), second);
    for edit in [
        json!({"redoubt.dev/previous-rotation": null}),
        json!({"redoubt.dev/rotated-at": "0"}),
        json!({"redoubt.dev/rotation": "77", "redoubt.dev/previous-rotation": "1"}),
    ] {
        let patch = Patch::Merge(json!({"metadata": {"annotations": edit}}));
        secrets.patch("web-session-binding", &PatchParams::default(), &patch).await.unwrap();
        eventually("the edit is undone", SOON, async || annotations().await.as_ref() == Some(&whole)).await;
    }
    store.ready().await;
    run::<String>(&mut held, redis::cmd("PING")).await.unwrap();
    drop(first_connection(&namespace.client, &first).await);
    drop(first_connection(&namespace.client, &second).await);

    // Without its owner the Secret is not the store's any more: it may not be overwritten, and the store says what holds.
    let patch = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    secrets.patch("web-session-binding", &PatchParams::default(), &patch).await.unwrap();
    let taken = ("False".to_owned(), "NameTaken".to_owned());
    eventually("the store says that the name is taken", SOON, async || {
        condition(&store, "BindingWritten").await == taken
    })
    .await;
    assert_eq!(condition(&store, "UserInPlace").await.0, "True", "its user is not removed, nor said to be");
    run::<String>(&mut held, redis::cmd("PING")).await.unwrap();
    secrets.delete("web-session-binding", &DeleteParams::default()).await.unwrap();
    store.ready().await;
    assert_eq!(annotations().await, Some(whole));
    run::<String>(&mut held, redis::cmd("PING")).await.unwrap();
    namespace.delete().await;
}
