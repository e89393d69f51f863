//! Planned moves of the primary on a whole layer under load.

use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::switchover::{Switchover, switchover};

use crate::support::history::{Writers, check, keys_of};
use crate::support::layer::{Layer, Options, SOON};
use crate::support::{eventually, spread};

const WRITERS: usize = 3;

/// The order to move the primary away from `from`, as the operator gives it.
fn request(layer: &Layer, from: NodeId) -> Switchover {
    let at = |id: NodeId| (layer.nodes[&id].address.clone(), layer.operator_on(id));
    Switchover {
        master_name: layer.master_name.clone(),
        from: at(from),
        others: layer.data_ids().into_iter().filter(|id| *id != from).map(at).collect(),
        sentinels: layer.sentinel_ids().into_iter().map(|id| layer.operator_on(id)).collect(),
        failover_timeout: Duration::from_secs(10),
        patience: Duration::from_secs(5),
    }
}

/// One move under load. The longest time without an acknowledged write.
async fn moved_under_load(layer: &Layer) -> Duration {
    let from = layer.primary().await.unwrap();
    let before = layer.keys(from).await.unwrap();
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || layer.keys(from).await.unwrap_or(0) > before + 200).await;
    switchover(&request(layer, from)).await.unwrap();
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != from)).await;
    let to = layer.primary().await.unwrap();
    let at = layer.keys(to).await.unwrap();
    eventually("writes arrive again", SOON, async || layer.keys(to).await.unwrap_or(0) > at + 200).await;
    let verdict = check(&writers.finish().await, &keys_of(&layer.endpoint(to)).await);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
    layer.wait_until_whole().await;
    verdict.longest_gap
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_moves_lose_nothing_and_sentinel_aware_writers_hardly_notice() {
    let layer = Layer::whole(&Options::default()).await;
    let mut gaps = Vec::new();
    let moves = std::env::var("REDOUBT_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for _ in 0..moves {
        gaps.push(moved_under_load(&layer).await);
    }
    println!("planned moves: gap {}", spread(gaps));
}
