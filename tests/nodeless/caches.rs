//! Claims about caches, as an application sees them that has nothing but its binding Secret.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::use_status::{BudgetState, InvalidationState};
use serde_json::json;

use crate::commands::{kubectl, try_kubectl};
use crate::place;
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace};

/// A changed policy is on every primary within this time; `limits` holds it to less, under callers.
const POLICY_WITHIN: Duration = Duration::from_secs(20);

/// What get says: what to do, the value, and the token.
async fn get(connection: &mut MultiplexedConnection, key: &str) -> (i64, Option<String>, String) {
    let reply: Vec<Value> = run(connection, call("redoubt_cache_get", key, &[])).await.unwrap();
    let token = reply.get(2).cloned().map(|token| redis::from_redis_value(token).unwrap()).unwrap_or_default();
    (redis::from_redis_value(reply[0].clone()).unwrap(), redis::from_redis_value(reply[1].clone()).unwrap(), token)
}

async fn set(connection: &mut MultiplexedConnection, key: &str, token: &str, value: &str) -> i64 {
    run(connection, call("redoubt_cache_set", key, &[token, value])).await.unwrap()
}

fn is_denied<T: std::fmt::Debug>(reply: RedisResult<T>) -> bool {
    reply.unwrap_err().code() == Some("NOPERM")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_with_a_layer_of_its_own_serves_and_its_policy_changes_live() {
    let namespace = TestNamespace::create("nl-caches").await;
    let cache: Store<CacheNamespace> = Store::make(&namespace, "web", json!({"ttl": "1h", "maxEntryBytes": 100})).await;
    cache.ready().await;
    let status = cache.status().await.unwrap();
    assert_eq!(status.layer.as_ref().unwrap().name, "web-cache");
    assert_eq!(status.functions.unwrap().library, "redoubt_caches");
    assert!(status.conditions.iter().any(|it| it.type_ == "EvictionSuits" && it.status == "True"));
    let binding = cache.binding().await.unwrap();
    assert_eq!(status.binding.unwrap().name, "web-cache-binding");
    for (field, expected) in
        [("prefix", "web:"), ("channel", "cache:invalidate:web:"), ("ttl-ms", "3600000"), ("max-entry-bytes", "100")]
    {
        assert_eq!(binding[field], expected, "{field}");
    }
    let mut connection = cache.connected().await;
    let (verdict, value, token) = get(&mut connection, "web:{0}a").await;
    assert_eq!((verdict, value), (0, None));
    assert_eq!(get(&mut connection, "web:{0}a").await.0, -1, "somebody computes");
    assert_eq!(set(&mut connection, "web:{0}a", &token, "one").await, 1);
    assert_eq!(get(&mut connection, "web:{0}a").await.1.as_deref(), Some("one"));
    assert_eq!(run::<i64>(&mut connection, call("redoubt_cache_invalidate", "web:{0}a", &[])).await.unwrap(), 1);
    assert_eq!(get(&mut connection, "web:{0}a").await.0, 0);
    // 37 of 40 reads found something.
    assert_eq!(set(&mut connection, "web:{0}a", "", "one").await, 1);
    for _ in 0..36 {
        assert_eq!(get(&mut connection, "web:{0}a").await.0, 1);
    }
    eventually("the status tells the hit ratio", SOON, async || {
        let status = cache.status().await.unwrap();
        status.hit_ratio.is_some_and(|ratio| (88..=96).contains(&ratio))
            && status.counters.iter().any(|row| row.counts["hits"] >= 30 && row.counts["misses"] == 2)
    })
    .await;
    let large = "x".repeat(101);
    let refused: RedisResult<Value> = run(&mut connection, call("redoubt_cache_set", "web:{0}b", &["", &large])).await;
    assert_eq!(refused.unwrap_err().code(), Some("TOOBIG"));
    assert!(is_denied(run::<Value>(&mut connection, call("redoubt_cache_get", "api:{0}a", &[])).await));
    assert!(is_denied(run::<Value>(&mut connection, redis::cmd("FLUSHDB").clone()).await));

    cache.change(json!({"maxEntryBytes": "1Ki", "staleFor": "10m"})).await;
    eventually("the larger value is stored", POLICY_WITHIN, async || {
        run::<i64>(&mut connection, call("redoubt_cache_set", "web:{0}b", &["", &large])).await.is_ok()
    })
    .await;
    eventually("the binding says so", SOON, async || cache.binding().await.unwrap()["stale-ms"] == "600000").await;
    cache.ready().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_and_sessions_share_a_layer_and_a_cache_in_the_way_of_another_is_refused() {
    let namespace = TestNamespace::create("nl-caches-shared").await;
    namespace.layer("shared", json!({"mode": "Sentinel", "memory": {"evictionPolicy": "volatile-ttl"}})).await;
    let place = json!({"name": "shared"});
    let store = Store::create(&namespace, "login", json!({"idleTimeout": "30m", "layer": place})).await;
    let cache: Store<CacheNamespace> =
        Store::make(&namespace, "web", json!({"layer": place, "ttl": "5m", "maxTtl": "10m"})).await;
    store.ready().await;
    cache.ready().await;
    for (name, further, reason, words) in [
        ("inner", json!({"keyPrefix": "web:pages:"}), "PrefixOverlaps", "web:"),
        ("cache", json!({}), "ChannelOverlaps", "cache:invalidate:web:"),
        ("tracks", json!({"invalidation": {"tracking": true}}), "TrackingShared", "access.application"),
    ] {
        let mut spec = json!({"layer": place, "ttl": "5m"});
        for (field, value) in further.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let refused: Store<CacheNamespace> = Store::make(&namespace, name, spec).await;
        refused.refused(reason, words).await;
    }
    // A day of TTL on a layer with sessions of half an hour.
    let long: Store<CacheNamespace> = Store::make(&namespace, "long", json!({"layer": place, "ttl": "5m"})).await;
    long.ready().await;
    let told = long.status().await.unwrap().conditions;
    assert!(told.iter().any(|it| it.type_ == "EvictionSuits" && it.reason == "TtlOrder"), "{told:?}");

    let (mut session, mut pages) = (store.connected().await, cache.connected().await);
    assert!(run::<i64>(&mut session, call("redoubt_session_create", "login:{t}s:1", &["ada"])).await.unwrap() > 0);
    assert_eq!(set(&mut pages, "web:{0}a", "", "one").await, 1);
    assert!(is_denied(run::<Value>(&mut session, call("redoubt_cache_get", "web:{0}a", &[])).await));
    assert!(is_denied(run::<Value>(&mut pages, call("redoubt_session_get", "login:{t}s:1", &[])).await));

    // A cache that is deleted takes its user along, and leaves the sessions alone.
    cache.api().delete("web", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("its user is gone", SOON, async || run::<String>(&mut pages, redis::cmd("PING")).await.is_err()).await;
    assert!(run::<Value>(&mut session, call("redoubt_session_get", "login:{t}s:1", &[])).await.unwrap() != Value::Nil);
    namespace.delete().await;
}

/// The keys of a beginning, one of some thousand, are gone within seconds of the annotation, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_begin_alike_are_removed_on_an_annotation_and_the_status_says_how_far() {
    let namespace = TestNamespace::create("nl-caches-prefix").await;
    let cache: Store<CacheNamespace> = Store::make(&namespace, "web", json!({"ttl": "1h"})).await;
    cache.ready().await;
    let mut connection = cache.connected().await;
    for number in 0..300 {
        for of in ["page", "user"] {
            assert_eq!(set(&mut connection, &format!("web:{{0}}{of}:{number}"), "", "x").await, 1);
        }
    }
    let annotate = async |value: Option<&str>| {
        let patch = json!({"metadata": {"annotations": {"redoubt.dev/invalidate-prefix": value}}});
        cache.api().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    annotate(Some("api:")).await;
    let told = async || cache.status().await?.invalidation.map(|it| (it.state, it.removed));
    eventually("another's keys are refused", SOON, async || told().await == Some((InvalidationState::Refused, 0)))
        .await;
    annotate(Some("web:{0}page:")).await;
    eventually("the keys are gone", SOON, async || told().await == Some((InvalidationState::Done, 300))).await;
    for number in 0..300 {
        let exists = async |connection: &mut MultiplexedConnection, of: &str| {
            run::<i64>(connection, redis::cmd("EXISTS").arg(format!("web:{{0}}{of}:{number}")).clone()).await.unwrap()
        };
        assert_eq!((exists(&mut connection, "page").await, exists(&mut connection, "user").await), (0, 1));
    }
    removal_is_followed(&cache, &mut connection, &annotate).await;
    annotate(None).await;
    eventually("nothing is told of it any more", SOON, async || cache.status().await.unwrap().invalidation.is_none())
        .await;
    cache.ready().await;
    namespace.delete().await;
}

/// What takes a while is told as it goes on.
async fn removal_is_followed(
    cache: &Store<CacheNamespace>,
    connection: &mut MultiplexedConnection,
    annotate: &impl AsyncFn(Option<&str>),
) {
    const MANY: i64 = 20_000;
    let beginning = "web:{0}many:";
    for first in (0..MANY).step_by(1_000) {
        let mut sets = redis::pipe();
        for number in first..first + 1_000 {
            sets.add_command(call("redoubt_cache_set", &format!("{beginning}{number}"), &["", "x"])).ignore();
        }
        sets.query_async::<()>(connection).await.unwrap();
    }
    annotate(Some(beginning)).await;
    let mut seen: Vec<(InvalidationState, i64)> = Vec::new();
    eventually("all of them are gone", SOON, async || {
        let status = cache.status().await.unwrap().invalidation.filter(|it| it.beginning == beginning);
        if let Some(now) = status.map(|it| (it.state, it.removed))
            && seen.last() != Some(&now)
        {
            seen.push(now);
        }
        seen.last() == Some(&(InvalidationState::Done, MANY))
    })
    .await;
    println!("{seen:?}");
    let is_on_the_way = |(state, removed): &(InvalidationState, i64)| {
        *state == InvalidationState::Running && (1..MANY).contains(removed)
    };
    assert!(seen.iter().any(is_on_the_way), "{seen:?}");
    assert!(seen.is_sorted_by_key(|(_, removed)| *removed), "{seen:?}");
}

/// A cache above its budget is told so, and is shrunk once that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_above_its_budget_is_reported_in_its_status_and_shrinks_where_that_is_asked_for() {
    let namespace = TestNamespace::create("nl-caches-budget").await;
    let cache: Store<CacheNamespace> =
        Store::make(&namespace, "web", json!({"ttl": "1h", "memoryBudget": "1Mi"})).await;
    cache.ready().await;
    let verdict = async || cache.status().await?.budget.map(|budget| (budget.bytes, budget.state));
    // A kubelet shows the list of prefixes in its own time.
    let told = async |what: &str, expected: (i64, BudgetState)| {
        eventually(what, SOON, async || {
            place::refresh_secrets(&namespace.name).await;
            verdict().await == Some(expected)
        })
        .await;
    };
    told("an empty cache is within its budget", (1 << 20, BudgetState::Within)).await;
    let mut connection = cache.connected().await;
    let value = "x".repeat(1_000);
    for number in 0..2_000 {
        assert_eq!(set(&mut connection, &format!("web:{{0}}{number}"), "", &value).await, 1);
    }
    told("it is above", (1 << 20, BudgetState::Above)).await;
    cache.change(json!({"memoryBudget": "4Mi"})).await;
    told("a larger budget is kept", (4 << 20, BudgetState::Within)).await;
    cache.change(json!({"memoryBudget": "1Mi", "onBudget": "Shrink"})).await;
    told("it is shrunk", (1 << 20, BudgetState::Within)).await;
    let mut there = 0;
    for number in 0..2_000 {
        there +=
            run::<i64>(&mut connection, redis::cmd("EXISTS").arg(format!("web:{{0}}{number}")).clone()).await.unwrap();
    }
    assert!((400..1_000).contains(&there), "{there}");
    cache.ready().await;
    cache.change(json!({"memoryBudget": null, "onBudget": null})).await;
    eventually("without a budget nothing is told of one", SOON, async || {
        cache.status().await.unwrap().budget.is_none()
    })
    .await;
    namespace.delete().await;
}

/// The page of spikes is applied as it is: its objects, the autoscaler too, and its command.
#[tokio::test(flavor = "multi_thread")]
async fn the_objects_of_the_page_of_spikes_are_taken_and_its_layer_is_scaled_by_hand() {
    let namespace = TestNamespace::create("nl-spikes").await;
    let page = std::fs::read_to_string("docs/uses/spikes.md").unwrap();
    let folder = folder_of(&namespace.name);
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    for (number, block) in blocks.iter().enumerate() {
        let text = block.replace("namespace: shop", &format!("namespace: {}", namespace.name));
        let path = folder.join(format!("{number}.yaml"));
        std::fs::write(&path, text).unwrap();
        kubectl(&["apply", "-f", &path.display().to_string()]);
    }
    let of = |kind: &str, path: &str| {
        try_kubectl(&["-n", &namespace.name, "get", kind, "-o", &format!("jsonpath={{{path}}}")]).unwrap_or_default()
    };
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    eventually("the cache is ready", SOON, async || of("cachenamespace/products", ready) == "True").await;
    let command = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().trim();
    let command = command.replace("-n shop", &format!("-n {}", namespace.name));
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "kubectl");
    kubectl(&words[1..]);
    eventually("the layer has four replicas", SOON, async || {
        of("datalayer/sale", ".status.replicas") == "4" && of("datalayer/sale", ready) == "True"
    })
    .await;
    // What the autoscaler goes by: the scale subresource says how many there are, and which pods.
    let scale = format!("/apis/redoubt.dev/v1alpha1/namespaces/{}/datalayers/sale/scale", namespace.name);
    let scale: serde_json::Value = serde_json::from_str(&kubectl(&["get", "--raw", &scale])).unwrap();
    assert_eq!(scale["status"]["replicas"], 4);
    let selector = scale["status"]["selector"].as_str().unwrap();
    let pods = kubectl(&["-n", &namespace.name, "get", "pods", "-l", selector, "-o", "name"]);
    assert!(!pods.is_empty(), "{selector}");
    let target = of("hpa/sale", ".spec.scaleTargetRef.name");
    assert_eq!(target, "sale");
    std::fs::remove_dir_all(folder).unwrap();
    namespace.delete().await;
}

fn folder_of(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("redoubt-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
