//! Claims about session stores: sessions are kept as they were promised.

use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redoubt::model::{NodeId, NodeKind};
use serde_json::json;

use crate::disturbances::delete_all_pods;
use crate::layer::Layer;
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace, engine};

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
    let namespace = TestNamespace::create("e2e-session-survival").await;
    let spec = json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Sentinel", "cpu": "20m",
        "engine": {"image": engine(), "pullPolicy": "Never"}}}});
    let store = Store::create(&namespace, "web", spec).await;
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
    layer.kill_engine(primary).await;
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
    namespace.delete().await;
}

/// The primary, by the word of the operator's status: the layer has no user that the test could ask with.
async fn primary_of(layer: &Layer) -> NodeId {
    let name = layer.object().await.status.unwrap().primary.unwrap();
    let ordinal = name.rsplit('-').next().unwrap().parse().unwrap();
    NodeId { kind: NodeKind::Data, ordinal }
}
