//! Sentinels that find a primary down long after its replicas lost it: by their own rule they elect nobody.

use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::{Connection, sentinel};
use tokio::time::sleep;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

const DETECTION: u64 = 1_000;
/// More than ten times that.
const AWAY: Duration = Duration::from_secs(14);

/// The primary's node is lost, and `further`, while no Sentinel runs.
async fn lost_while_no_sentinel_ran(layer: &mut Layer, further: Option<NodeId>) -> NodeId {
    let primary = layer.primary().await.unwrap();
    for id in layer.sentinel_ids().into_iter().chain([primary]).chain(further) {
        layer.kill_node(id);
    }
    sleep(AWAY).await;
    for id in layer.sentinel_ids() {
        layer.start_node(id);
    }
    primary
}

async fn detection(layer: &Layer, id: NodeId) -> Option<Duration> {
    let connection = Connection::open(&layer.operator_on(id)).await.ok()?;
    Some(sentinel::master(&connection, &layer.master_name).await.ok()??.detection)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_lost_while_all_sentinels_were_away_is_replaced() {
    let mut layer = Layer::in_sync(&Options { detection: DETECTION, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let held = layer.keys(layer.primary().await.unwrap()).await;
    let lost = lost_while_no_sentinel_ran(&mut layer, None).await;
    let took = eventually("another takes writes", Duration::from_mins(1), async || {
        let Some(primary) = layer.primary().await.filter(|id| *id != lost) else { return false };
        let Ok(connection) = Connection::open(&layer.endpoint(primary)).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg("key:0").arg(1)).await.is_ok()
    })
    .await;
    println!("Sentinels away for {AWAY:?}: another takes writes {took:.2?} after their return");
    layer.start_node(lost);
    layer.wait_until_in_sync().await;
    assert!(layer.keys(layer.primary().await.unwrap()).await >= held);
    eventually("each Sentinel has its usual time of detection", SOON, async || {
        for id in layer.sentinel_ids() {
            if detection(&layer, id).await != Some(Duration::from_millis(DETECTION)) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_left_alone_says_that_a_person_decides() {
    let mut layer = Layer::in_sync(&Options { detection: DETECTION, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let mut replicas = layer.data_ids().into_iter().filter(|id| *id != primary);
    let (other, left) = (replicas.next().unwrap(), replicas.next().unwrap());
    // Both may have what this one lacks: it was cut off, and nothing shows that it was not.
    lost_while_no_sentinel_ran(&mut layer, Some(other)).await;
    let took = eventually("it says that it waits for a person", Duration::from_secs(130), async || {
        layer.lineage(left).await.is_some_and(|answer| answer.needs_person.is_some())
    })
    .await;
    println!("left alone: says so {took:.2?} after the Sentinels' return");
    layer.edit_documents(|config| config.accept_loss = Some(left.ordinal));
    eventually("the chosen node is primary", SOON, async || layer.primary().await == Some(left)).await;
}
