//! Claims about the stores of a layer: each keeps what it has, and is told what it has not.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use serde_json::json;

use crate::commands::{kubectl, refuse};
use crate::faults::Faults;
use crate::layer::Layer;
use crate::limit_exports::exported;
use crate::place;
use crate::polling::eventually;
use crate::store::{Store, call, connect, run};
use crate::test_namespace::{SOON, TestNamespace};

/// How long a status may take, with some room for a machine that compiles meanwhile.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);

fn on(layer: &Layer, further: &serde_json::Value) -> serde_json::Value {
    let identity = &layer.identity;
    let mut spec = json!({"idleTimeout": "30m", "layer": {"name": identity.name, "namespace": identity.namespace}});
    for (field, value) in further.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

async fn leave(namespace: &TestNamespace, is_given: bool) {
    let namespaces: Api<Namespace> = Api::all(namespace.client.clone());
    let value = if is_given { json!("yes") } else { json!(null) };
    let patch = Patch::Merge(json!({"metadata": {"labels": {"sessions": value}}}));
    namespaces.patch(&namespace.name, &PatchParams::default(), &patch).await.unwrap();
}

async fn reason_is(store: &Store, kind: &str, reason: &str) {
    let took = eventually(&format!("the store says {reason}"), REPORTED_WITHIN, async || {
        let status = store.api().get(&store.name).await.unwrap().status.unwrap_or_default();
        status.conditions.iter().any(|condition| condition.type_ == kind && condition.reason == reason)
    })
    .await;
    println!("{reason}: after {took:.2?}");
}

async fn tenants(layer: &Layer) -> Vec<(String, String)> {
    let layers: Api<DataLayer> = Api::namespaced(layer.client.clone(), &layer.identity.namespace);
    let status = layers.get(&layer.identity.name).await.unwrap().status.unwrap();
    status.tenants.unwrap_or_default().into_iter().map(|tenant| (tenant.namespace, tenant.prefix)).collect()
}

#[tokio::test]
async fn an_older_store_that_gets_leave_takes_nothing_and_each_revoked_store_says_so_at_once() {
    let namespace = TestNamespace::create_with("tenants-data", place::operator_of_all().await).await;
    let (evil, good) = (namespace.another("tenants-a").await, namespace.another("tenants-b").await);
    let layer = namespace
        .layer(
            "shared",
            json!({"access": {"namespaces": {
        "from": "Selector", "selector": {"matchLabels": {"sessions": "yes"}}}}}),
        )
        .await;
    leave(&good, true).await;
    let older = Store::create(&evil, "shop", on(&layer, &json!({}))).await;
    older.refused("NotAllowed", "access.namespaces").await;
    let store = Store::create(&good, "shop", on(&layer, &json!({}))).await;
    store.ready().await;
    let mut connection = store.connected().await;
    run::<i64>(&mut connection, call("redoubt_session_create", "tenants-b/shop:{t}s:1", &["ada"])).await.unwrap();

    leave(&evil, true).await;
    older.ready().await;
    store.ready().await;
    run::<String>(&mut connection, redis::cmd("PING")).await.unwrap();
    let mut others = older.connected().await;
    let error = run::<redis::Value>(&mut others, call("redoubt_session_get", "tenants-b/shop:{t}s:1", &[])).await;
    assert_eq!(error.unwrap_err().code(), Some("NOPERM"));
    let expected = [("tenants-a", "tenants-a/shop:"), ("tenants-b", "tenants-b/shop:")];
    assert_eq!(tenants(&layer).await, expected.map(|(namespace, prefix)| (namespace.to_owned(), prefix.to_owned())));

    leave(&good, false).await;
    reason_is(&store, "Accepted", "NotAllowed").await;
    assert!(run::<String>(&mut connection, redis::cmd("PING")).await.is_err(), "its connections are cut");
    assert!(store.binding().await.is_none());

    // A specification that is refused changes nothing for tenants: a narrower leave waits for the rest of it.
    layer
        .change(json!({"access": {"namespaces": {"from": "Same", "selector": null}}, "memory": {"limit": "20Mi"}}))
        .await;
    eventually("the specification is refused", SOON, async || {
        layer.condition("Accepted").await.is_some_and(|it| it.0 == "False")
    })
    .await;
    run::<String>(&mut others, redis::cmd("PING")).await.unwrap();
    assert!(older.binding().await.is_some());
    layer.change(json!({"memory": {"limit": null}})).await;
    reason_is(&older, "Accepted", "NotAllowed").await;
    for namespace in [evil, good, namespace] {
        namespace.delete().await;
    }
}

/// It is judged by the labels of its namespace, which a new leader has to know first.
#[tokio::test]
async fn a_new_leader_takes_nothing_from_a_store_of_another_namespace() {
    let namespace = TestNamespace::create_with("tenants-lead", place::operator_of_all().await).await;
    let other = namespace.another("tenants-led").await;
    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"sessions": "yes"}}});
    let layer = namespace.layer("shared", json!({"access": {"namespaces": selector}})).await;
    leave(&other, true).await;
    let store = Store::create(&other, "web", on(&layer, &json!({}))).await;
    store.ready().await;
    layer.ready().await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &other.name);
    let published = async || {
        let version = secrets.get("web-session-binding").await.unwrap().metadata.resource_version;
        (store.status().await.unwrap().conditions, version)
    };
    let before = published().await;
    for _ in 0..3 {
        place::replace_operator_of_all();
        eventually("the new leader has made passes", SOON, async || passes() >= 5).await;
        assert_eq!(published().await, before);
    }
    other.delete().await;
    namespace.delete().await;
}

/// Passes of the operator of all namespaces.
fn passes() -> u64 {
    let text = place::metrics("").text();
    let counts = text.lines().filter(|line| line.starts_with("redoubt_reconcile_duration_seconds_count{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Waits until an audit found no key under the prefix that the store asks for. A kubelet shows the list of prefixes in its own time.
pub async fn accepted_after_an_audit(namespace: &str, store: &Store) {
    eventually("the store is accepted", SOON * 2, async || {
        place::refresh_secrets(namespace).await;
        store.condition("Accepted").await.is_some_and(|(status, ..)| status == "True")
    })
    .await;
}

#[tokio::test]
async fn a_tenant_keeps_its_place_when_an_older_store_is_corrected_and_the_operator_restarts() {
    let namespace = TestNamespace::create("tenants-place").await;
    let layer = namespace.layer("shared", json!({})).await;
    let older = Store::create(&namespace, "a", on(&layer, &json!({"keyPrefix": "w:", "revokeReplicas": 9}))).await;
    older.refused("TooFewReplicas", "revokeReplicas").await;
    let store = Store::create(&namespace, "b", on(&layer, &json!({"keyPrefix": "w:"}))).await;
    store.ready().await;
    older.change(json!({"revokeReplicas": 1})).await;
    older.refused("PrefixOverlaps", "b").await;
    place::start_operator(&namespace.name);
    layer.ready().await;
    older.change(json!({"maxPerUser": 3})).await;
    older.refused("PrefixOverlaps", "b").await;
    store.ready().await;
    store.api().delete("b", &DeleteParams::default()).await.unwrap();
    older.refused("PrefixOverlaps", "which left").await;
    accepted_after_an_audit(&namespace.name, &older).await;
    older.ready().await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_binding_that_was_deleted_or_edited_is_back_and_nothing_is_asked_at_rest() {
    let namespace = TestNamespace::create("tenants-binding").await;
    let layer = namespace.layer("shared", json!({})).await;
    let store = Store::create(&namespace, "web", on(&layer, &json!({}))).await;
    store.ready().await;
    layer.ready().await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let whole = store.binding().await.unwrap();
    secrets.delete("web-session-binding", &DeleteParams::default()).await.unwrap();
    let took = eventually("the binding is back", Duration::from_secs(5), async || {
        store.binding().await.as_ref() == Some(&whole)
    })
    .await;
    println!("deleted: back after {took:?}");
    let edit = Patch::Merge(json!({"stringData": {"password": "edited"}}));
    secrets.patch("web-session-binding", &PatchParams::default(), &edit).await.unwrap();
    let took = eventually("the edit is undone", Duration::from_secs(5), async || {
        store.binding().await.as_ref() == Some(&whole)
    })
    .await;
    println!("edited: undone after {took:?}");

    // At rest the watches say all, and a pass, which is every 3 s, asks for nothing. Each of the nine watches is made again every five minutes
    // or so: not in two windows one after the other.
    layer.ready().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (faults, watched) = (place::faults(&namespace.name), Duration::from_secs(30));
    let mut windows = Vec::new();
    for _ in 0..2 {
        let before = faults.requests();
        tokio::time::sleep(watched).await;
        windows.push(faults.requests() - before);
    }
    println!("{windows:?} requests in {watched:?} at rest");
    assert!(windows.iter().any(|asked| *asked <= 5), "{windows:?} requests in {watched:?} at rest");
    namespace.delete().await;
}

/// As long as the API server takes no Secret of its name, the binding is not called written.
#[tokio::test]
async fn a_binding_that_cannot_be_written_again_is_not_called_written() {
    let namespace = TestNamespace::create("tenants-unwritten").await;
    let dedicated = json!({"mode": "Standalone", "memory": {"limit": "256Mi"}});
    let store =
        Store::create(&namespace, "web", json!({"idleTimeout": "30m", "layer": {"dedicated": dedicated}})).await;
    store.ready().await;
    let whole = store.binding().await.unwrap();
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]});
    refuse(&namespace.name, &rule, "object.metadata.name != 'web-session-binding'");
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let written = async || {
        let status = store.api().get("web").await.unwrap().status.unwrap_or_default();
        status.conditions.into_iter().find(|it| it.type_ == "BindingWritten").unwrap()
    };
    eventually("it is not called written", SOON, async || {
        // Until the policy is in force it comes back.
        let _ = secrets.delete("web-session-binding", &DeleteParams::default()).await;
        let now = written().await;
        now.status == "False" && now.reason == "NotWritten" && now.message.contains("a policy of the test")
    })
    .await;
    assert_eq!(store.binding().await, None);
    kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", &namespace.name]);
    eventually("it is written, and called so", SOON, async || {
        store.binding().await.as_ref() == Some(&whole) && written().await.status == "True"
    })
    .await;
    namespace.delete().await;
}

#[tokio::test]
async fn a_binding_that_cannot_be_read_stops_its_own_store_only() {
    let namespace = TestNamespace::create("tenants-unreadable").await;
    let layer = namespace.layer("shared", json!({})).await;
    let web = Store::create(&namespace, "web", on(&layer, &json!({}))).await;
    web.ready().await;
    let mut connection = web.connected().await;
    // An application has it mounted; the status names it again once it can be read.
    let binding = web.binding().await.unwrap();
    // An operator that has never read it.
    let faults = Faults::default();
    faults.refuse_reads(Some("/secrets/web-session-binding"));
    place::start_operator_with(&namespace.name, faults.clone());
    eventually("the store says so", SOON, async || {
        let status = web.api().get("web").await.unwrap().status.unwrap();
        status.conditions.iter().any(|it| it.type_ == "BindingWritten" && it.status == "False")
    })
    .await;
    let api = Store::create(&namespace, "api", on(&layer, &json!({}))).await;
    api.ready().await;
    layer.ready().await;
    run::<String>(&mut connection, redis::cmd("PING")).await.unwrap();
    eventually("another client is connected", SOON, async || connect(&namespace.client, &binding).await.is_some())
        .await;
    faults.refuse_reads(None);
    web.ready().await;
    namespace.delete().await;
}

/// As stores: refused without leave, and with it each has its namespace before its keys, its channel and what its Secrets say.
#[tokio::test]
async fn a_policy_and_a_cache_on_a_layer_of_another_namespace_need_its_leave_and_have_their_namespace_before_their_keys()
 {
    let namespace = TestNamespace::create_with("tenants-host", place::operator_of_all().await).await;
    let guest = namespace.another("tenants-guest").await;
    let by_selector = json!({"from": "Selector", "selector": {"matchLabels": {"sessions": "yes"}}});
    let further = json!({"memory": {"evictionPolicy": "volatile-ttl"}, "access": {"namespaces": by_selector}});
    namespace.layer("shared", further).await;
    let place = json!({"name": "shared", "namespace": namespace.name});
    let limits =
        json!([{"name": "minute", "quota": 2, "window": "10m", "algorithm": "FixedWindow", "align": "FirstHit"}]);
    let spec = json!({"layer": place, "limits": limits, "export": {"program": "EnvoyRateLimit"}});
    let policy: Store<RateLimitPolicy> = Store::make(&guest, "api", spec).await;
    let cache: Store<CacheNamespace> = Store::make(&guest, "web", json!({"layer": place, "ttl": "5m"})).await;
    policy.refused("NotAllowed", "access.namespaces").await;
    cache.refused("NotAllowed", "access.namespaces").await;
    assert!(policy.binding().await.is_none() && cache.binding().await.is_none());
    assert!(exported(&guest, "api").await.is_none());

    leave(&guest, true).await;
    policy.ready().await;
    cache.ready().await;
    // One of the layer's own namespace has the same name.
    let own: Store<RateLimitPolicy> = Store::make(&namespace, "api", json!({"layer": place, "limits": limits})).await;
    own.ready().await;
    assert_eq!(policy.binding().await.unwrap()["prefix"], "tenants-guest/api:");
    assert_eq!(exported(&guest, "api").await.unwrap()["CACHE_KEY_PREFIX"], "tenants-guest/api:");
    let pages = cache.binding().await.unwrap();
    assert_eq!(
        (pages["prefix"].as_str(), pages["channel"].as_str()),
        ("tenants-guest/web:", "cache:invalidate:tenants-guest/web:")
    );
    assert_eq!(own.binding().await.unwrap()["prefix"], "api:");

    let (mut limiter, mut of_own, mut of_cache) =
        (policy.connected().await, own.connected().await, cache.connected().await);
    let allowed = async |connection: &mut MultiplexedConnection, key: &str| {
        let reply: Vec<redis::Value> = run(connection, call("redoubt_limit", key, &[])).await?;
        redis::from_redis_value::<i64>(reply[0].clone()).map_err(redis::RedisError::from)
    };
    for expected in [1, 1, 0] {
        assert_eq!(allowed(&mut limiter, "tenants-guest/api:{ada}").await.unwrap(), expected);
    }
    assert_eq!(allowed(&mut of_own, "api:{ada}").await.unwrap(), 1, "another policy, another count");
    let denied = |reply: RedisResult<i64>| reply.unwrap_err().code() == Some("NOPERM");
    assert!(denied(allowed(&mut limiter, "api:{ada}").await));
    assert!(denied(allowed(&mut of_own, "tenants-guest/api:{ada}").await));
    let set = |key: &str| call("redoubt_cache_set", key, &["", "one"]);
    assert_eq!(run::<i64>(&mut of_cache, set("tenants-guest/web:{0}a")).await.unwrap(), 1);
    assert!(denied(run(&mut of_cache, set("web:{0}a")).await));

    leave(&guest, false).await;
    policy.refused("NotAllowed", "access.namespaces").await;
    cache.refused("NotAllowed", "access.namespaces").await;
    eventually("their Secrets go and their connections are cut", SOON, async || {
        policy.binding().await.is_none()
            && cache.binding().await.is_none()
            && exported(&guest, "api").await.is_none()
            && run::<String>(&mut limiter, redis::cmd("PING")).await.is_err()
            && run::<String>(&mut of_cache, redis::cmd("PING")).await.is_err()
    })
    .await;
    assert_eq!(allowed(&mut of_own, "api:{ada}").await.unwrap(), 1);
    for namespace in [guest, namespace] {
        namespace.delete().await;
    }
}
