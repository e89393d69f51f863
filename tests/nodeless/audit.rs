//! Claims about the audit of a layer's keys: what statuses say, and what `Repair` does.

use serde_json::json;

use crate::place;
use crate::polling::eventually;
use crate::stage::{SOON, Stage};
use crate::store::{Store, call, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_expiry_is_told_in_the_status_of_its_use_and_layer_and_repaired_where_that_is_asked_for() {
    let stage = Stage::set("nl-audit").await;
    let store = Store::create(&stage, "web", json!({"idleTimeout": "30m", "absoluteLifetime": "2h"})).await;
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
        place::refresh_secrets(&stage.namespace).await;
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
    let said = item().await.unwrap();
    assert!(!said.ok && said.evidence.contains(&told.examples[0]), "{said:?}");
    assert!(!serde_json::to_string(&layer.object().await.status).unwrap().contains("forgotten"));

    store.change(json!({"layer": {"dedicated": {"mode": "Sentinel", "audit": {"mode": "Repair"}}}})).await;
    let lifetime = async |connection: &mut redis::aio::MultiplexedConnection| {
        run::<i64>(connection, redis::cmd("PTTL").arg("web:forgotten").clone()).await.unwrap()
    };
    eventually("it is repaired", SOON, async || {
        place::refresh_secrets(&stage.namespace).await;
        lifetime(&mut connection).await > 0
    })
    .await;
    assert!(lifetime(&mut connection).await <= 2 * 3_600_000, "the longest that a session lives");
    eventually("that is told", SOON, async || {
        item().await.is_some_and(|item| item.ok) && audit().await.is_some_and(|audit| audit.without_expiry == 0)
    })
    .await;
    store.ready().await;
    stage.strike().await;
}
