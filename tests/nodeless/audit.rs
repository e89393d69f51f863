//! Claims about the audit of a layer's keys: what statuses say, and what `Repair` does.

use redoubt::api::cache_namespace::CacheNamespace;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use serde_json::json;

use crate::place;
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_expiry_is_reported_in_the_status_of_its_use_and_layer_and_repaired_where_that_is_asked_for() {
    let namespace = TestNamespace::create("nl-audit").await;
    let store = Store::create(&namespace, "web", json!({"idleTimeout": "30m", "absoluteLifetime": "2h"})).await;
    store.ready().await;
    let layer = store.layer().await;
    let item = async || {
        let status = layer.object().await.status.unwrap_or_default();
        status.checklist.into_iter().find(|item| item.item == "every key expires")
    };
    let audit = async || layer.object().await.status.and_then(|status| status.audit);
    let mut connection = store.connected().await;
    run::<i64>(&mut connection, call("redoubt_session_create", "web:{t}s:1", &["ada"])).await.unwrap();
    // A kubelet shows the new prefix in its own time.
    eventually("the checklist says that all expire", SOON, async || {
        place::refresh_secrets(&namespace.name).await;
        item().await.is_some_and(|item| item.ok) && store.status().await.unwrap().audit.is_some_and(|it| it.keys == 2)
    })
    .await;
    println!("{:?} {:?}", item().await, audit().await);
    run::<()>(&mut connection, redis::cmd("SET").arg("web:forgotten").arg(1).clone()).await.unwrap();
    eventually("the store tells of it", SOON, async || {
        store.status().await.unwrap().audit.is_some_and(|audit| audit.without_expiry == 1)
    })
    .await;
    eventually("the layer tells of it", SOON, async || audit().await.is_some_and(|told| told.without_expiry == 1))
        .await;
    let told = audit().await.unwrap();
    assert_eq!((told.outside, told.examples.len()), (0, 1));
    // The session and its user's index: the list rests as long as its first is about as large.
    assert_eq!(told.largest.len(), 2, "{:?}", told.largest);
    assert!(told.largest.iter().all(|key| key.prefix == "web:" && key.bytes > 0));
    assert!(told.largest.is_sorted_by(|one, next| one.bytes >= next.bytes));
    let said = item().await.unwrap();
    assert!(!said.ok && said.evidence.contains(&told.examples[0]), "{said:?}");
    assert!(!serde_json::to_string(&layer.object().await.status).unwrap().contains("forgotten"));

    store.change(json!({"layer": {"dedicated": {"mode": "Sentinel", "audit": {"mode": "Repair"}}}})).await;
    let lifetime = async |connection: &mut redis::aio::MultiplexedConnection| {
        run::<i64>(connection, redis::cmd("PTTL").arg("web:forgotten").clone()).await.unwrap()
    };
    eventually("it is repaired", SOON, async || {
        place::refresh_secrets(&namespace.name).await;
        lifetime(&mut connection).await > 0
    })
    .await;
    assert!(lifetime(&mut connection).await <= 2 * 3_600_000, "the longest that a session lives");
    eventually("that is told", SOON, async || {
        item().await.is_some_and(|item| item.ok) && audit().await.is_some_and(|audit| audit.without_expiry == 0)
    })
    .await;
    store.ready().await;
    namespace.delete().await;
}

/// Whatever the kind of use, each key gets the lifetime that its own use declares.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_under_the_prefix_of_a_cache_or_a_policy_gets_the_lifetime_that_it_declares() {
    let namespace = TestNamespace::create("nl-audit-uses").await;
    let further = json!({"memory": {"evictionPolicy": "volatile-ttl"}, "audit": {"mode": "Repair"}});
    let layer = namespace.layer("shared", further).await;
    let (place, hour) = (json!({"name": "shared"}), 3_600_000);
    let cache = json!({"layer": place, "ttl": "10m", "maxTtl": "30m"});
    let cache: Store<CacheNamespace> = Store::make(&namespace, "web", cache).await;
    let limits = json!([{"name": "minute", "quota": 5, "window": "1m"}, {"name": "hour", "quota": 50, "window": "1h"}]);
    let policy: Store<RateLimitPolicy> =
        Store::make(&namespace, "api", json!({"layer": place, "limits": limits})).await;
    cache.ready().await;
    policy.ready().await;
    let (mut of_cache, mut of_policy) = (cache.connected().await, policy.connected().await);
    let forget = |key: &str| redis::cmd("SET").arg(key).arg(1).clone();
    run::<()>(&mut of_cache, forget("web:forgotten")).await.unwrap();
    run::<()>(&mut of_policy, forget("api:forgotten")).await.unwrap();
    assert!(layer.set("of-nobody").await);
    let lifetime = |key: &str| redis::cmd("PTTL").arg(key).clone();
    let (mut of_entry, mut of_count) = (-1, -1);
    eventually("both are repaired", SOON, async || {
        place::refresh_secrets(&namespace.name).await;
        of_entry = run::<i64>(&mut of_cache, lifetime("web:forgotten")).await.unwrap();
        of_count = run::<i64>(&mut of_policy, lifetime("api:forgotten")).await.unwrap();
        of_entry > 0 && of_count > 0
    })
    .await;
    assert!(of_entry <= hour / 6 && (hour / 2..=hour).contains(&of_count), "{of_entry} and {of_count}");
    eventually("the statuses tell of no other", SOON, async || {
        let status = layer.object().await.status.unwrap_or_default();
        let of_uses = [cache.status().await.unwrap().audit, policy.status().await.unwrap().audit];
        status.audit.is_some_and(|told| (told.without_expiry, told.outside) == (1, 1))
            && of_uses.iter().flatten().filter(|told| (told.keys, told.without_expiry) == (1, 0)).count() == 2
    })
    .await;
    assert_eq!(layer.get("of-nobody").await.as_deref(), Some("of-nobody"));
    namespace.delete().await;
}
