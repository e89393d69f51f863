//! Of two replicas the one that has more takes over, whatever the Sentinels saw of them last.

use std::time::{Duration, Instant};

use redoubt::model::NodeId;
use redoubt::model::lineage::Activity;
use redoubt::redis::info::Info;
use redoubt::redis::{Connection, server};

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// Writes that only one of the replicas gets.
const WRITES: usize = 50;

/// A replica acknowledges once in this time (`replicationCron`).
const CRON_PERIOD: Duration = Duration::from_secs(1);

async fn info_of(layer: &Layer, id: NodeId) -> Option<Info> {
    server::info(&Connection::open(&layer.operator_on(id)).await.ok()?).await.ok()
}

async fn run_id(layer: &Layer, id: NodeId) -> String {
    info_of(layer, id).await.unwrap().run_id().unwrap().to_owned()
}

async fn online_replicas(primary: &Connection) -> usize {
    server::replication(primary).await.unwrap().replicas().into_iter().filter(|replica| replica.online).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_what_another_has_is_not_elected() {
    let layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    for round in 0..3 {
        layer.wait_until_in_sync().await;
        let primary = layer.primary().await.unwrap();
        let mut replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
        // Between two whose last seen offsets are the same a Sentinel takes the smaller run id.
        if run_id(&layer, replicas[0]).await > run_id(&layer, replicas[1]).await {
            replicas.reverse();
        }
        let [behind, ahead] = replicas[..] else { panic!("two replicas") };
        let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
        layer.freeze_engine(behind, true);
        // The one that is frozen cannot come back; the other does at once.
        operator.query::<()>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await.unwrap();
        eventually("one replica is back", SOON, async || online_replicas(&operator).await == 1).await;
        let application = Connection::open(&layer.endpoint(primary)).await.unwrap();
        let mut written = 0;
        eventually("only one replica gets the writes", SOON, async || {
            while written < WRITES {
                let key = format!("round-{round}:{written}");
                if application.query::<()>(redis::cmd("SET").arg(key).arg(1)).await.is_err() {
                    return false;
                }
                written += 1;
            }
            true
        })
        .await;
        let offset = server::replication(&operator).await.unwrap().offset();
        eventually("that one has them", SOON, async || {
            layer.replication(ahead).await.is_some_and(|info| info.offset() >= offset)
        })
        .await;
        layer.kill_engine(primary);
        layer.freeze_engine(behind, false);
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        assert_eq!(layer.primary().await, Some(ahead), "round {round}");
        layer.wait_until_in_sync().await;
        let application = Connection::open(&layer.endpoint(ahead)).await.unwrap();
        for number in 0..WRITES {
            let key = format!("round-{round}:{number}");
            let found: Option<u8> = application.query(redis::cmd("GET").arg(&key)).await.unwrap();
            assert_eq!(found, Some(1), "{key}");
        }
    }
}

/// What the primary had sent when it died lies in the sockets of replicas that are behind: it is read before one of them takes
/// over.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_sockets_of_busy_replicas_is_not_given_up() {
    let layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    for (round, behind) in [100, 400, 700].map(Duration::from_millis).into_iter().enumerate() {
        layer.wait_until_in_sync().await;
        let primary = layer.primary().await.unwrap();
        let replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
        let application = Connection::open(&layer.endpoint(primary)).await.unwrap();
        for id in &replicas {
            layer.freeze_engine(*id, true);
        }
        let value = "x".repeat(1_000);
        for number in 0..WRITES {
            let key = format!("behind-{round}:{number}");
            application.query::<()>(redis::cmd("SET").arg(key).arg(&value)).await.unwrap();
        }
        layer.kill_engine(primary);
        // No condition: that long they are busy.
        tokio::time::sleep(behind).await;
        for id in &replicas {
            layer.freeze_engine(*id, false);
        }
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        layer.wait_until_in_sync().await;
        let application = Connection::open(&layer.endpoint(layer.primary().await.unwrap())).await.unwrap();
        let mut lost = Vec::new();
        for number in 0..WRITES {
            let key = format!("behind-{round}:{number}");
            let found: Option<String> = application.query(redis::cmd("GET").arg(&key)).await.unwrap();
            lost.extend(found.is_none().then_some(key));
        }
        assert_eq!(lost, Vec::<String>::new(), "replicas that were busy for {behind:?}");
    }
}

/// Redis 7.0 counts a replica for `min-replicas-to-write` from the end of its full sync, and sends it nothing before its first
/// acknowledgement, up to a second later: what is acknowledged meanwhile, the file of the primary alone has.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_not_have_acknowledged_anything_yet_is_not_electable() {
    let layer = Layer::in_sync(&Options { data_nodes: 2, detection: 5_000, ..Options::default() }).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let old = run_id(&layer, replica).await;
    layer.kill_engine(replica);
    // When it had no link yet; when it had one, and its offset then.
    let (mut unlinked, mut linked) = (Instant::now(), None);
    let mut sent_nothing = 0;
    eventually("the replica may be elected", SOON, async || {
        let asked = Instant::now();
        let Some(info) = info_of(&layer, replica).await.filter(|info| info.run_id() != Some(&old)) else {
            return false;
        };
        let Some(link) = info.primary_link() else { return false };
        if !link.up || link.syncing {
            (unlinked, linked) = (asked, None);
            return false;
        }
        let (since, offset) = *linked.get_or_insert((unlinked, info.offset()));
        let is_sent_nothing = info.offset() == offset && since.elapsed() < CRON_PERIOD;
        sent_nothing += usize::from(is_sent_nothing);
        let is_offered = link.priority > 0
            || layer.lineage(replica).await.is_some_and(|answer| answer.activity == Activity::Serving);
        assert!(!is_offered || !is_sent_nothing, "offered {:?} after it had no link", since.elapsed());
        is_offered
    })
    .await;
    assert!(sent_nothing > 0, "never seen with a link and nothing sent");
}
