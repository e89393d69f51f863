//! All pods of a layer deleted, in every order and timing: it comes back by itself, whether it keeps data or not.

use std::time::{Duration, Instant};

use redoubt::model::NodeId;
use redoubt::redis::{Connection, server};
use tokio::time::sleep;

use crate::support::eventually;
use crate::support::layer::{Layer, Options, WRITTEN_AT_ONCE};

/// Rounds of each claim: a few by default, 200 for a soak.
fn rounds() -> u32 {
    std::env::var("REDOUBT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Has a key written and confirmed by both replicas.
async fn write(layer: &Layer, key: &str) {
    let key = key.to_owned();
    eventually("it takes a write that both replicas confirm", Duration::from_secs(40), async || {
        let Some(primary) = layer.primary().await else { return false };
        let Ok(connection) = Connection::open(&layer.endpoint(primary)).await else { return false };
        let is_written = connection.query::<()>(redis::cmd("SET").arg(&key).arg(1)).await.is_ok();
        is_written && server::wait(&connection, 2, Duration::from_secs(1)).await.is_ok_and(|confirmed| confirmed == 2)
    })
    .await;
}

/// One round: who dies when and how, and who comes back when.
async fn delete_all(layer: &mut Layer, dice: &mut Dice, only_data: bool) {
    let ids: Vec<NodeId> = if only_data { layer.data_ids() } else { layer.nodes.keys().copied().collect() };
    let spread = [1, 300, 3_000][usize::try_from(dice.below(3)).unwrap()];
    let mut events: Vec<(u64, bool, NodeId)> = Vec::new();
    for id in &ids {
        let dies = dice.below(spread);
        events.push((dies, false, *id));
        events.push((dies + 50 + dice.below(spread), true, *id));
    }
    events.sort_unstable_by_key(|(at, starts, id)| (*at, *starts, *id));
    let kills = dice.below(2) == 0;
    let began = Instant::now();
    for (at, starts, id) in events {
        sleep(Duration::from_millis(at).saturating_sub(began.elapsed())).await;
        if starts {
            // A new pod has a run folder of its own.
            let _ = std::fs::remove_file(layer.data(id).with_file_name("run").join("had-keys"));
            layer.start_node(id);
        } else if kills {
            layer.kill_node(id);
        } else {
            layer.terminate_node(id).await;
        }
    }
}

/// With all nodes there no silence is waited for: that of a node takes 30 s at the least.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// Longer than any wait that ends by itself.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(90);

/// Waits until the layer is in sync, and prints what is wrong meanwhile.
async fn wait_until_in_sync(layer: &Layer) -> Duration {
    let (began, mut before) = (Instant::now(), String::new());
    while let Err(fault) = layer.check_in_sync().await {
        assert!(began.elapsed() < IN_SYNC_WITHIN, "not in sync within {IN_SYNC_WITHIN:?}: {fault}");
        if fault != before && began.elapsed() > Duration::from_secs(5) {
            println!("  after {:.2?}: {fault}", began.elapsed());
            before = fault;
        }
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

async fn survives(keeps_data: bool, seed: u64) {
    let settings = if keeps_data { WRITTEN_AT_ONCE } else { &[] };
    let mut layer = Layer::in_sync(&Options { keeps_data, settings, ..Options::default() }).await;
    layer.mark_initialised();
    let mut dice = Dice(seed);
    for round in 0..rounds() {
        write(&layer, &format!("round {round}")).await;
        let only_data = dice.below(3) == 0;
        delete_all(&mut layer, &mut dice, only_data).await;
        eventually("there is a primary", SERVES_WITHIN, async || layer.primary().await.is_some()).await;
        let took = wait_until_in_sync(&layer).await;
        println!("keeps data: {keeps_data}, round {round}: whole {took:.2?} after the last pod was back");
        if keeps_data {
            let confirmed: Vec<String> = (0..=round).map(|round| format!("round {round}")).collect();
            let primary = Connection::open(&layer.endpoint(layer.primary().await.unwrap())).await.unwrap();
            let held: usize = primary.query(redis::cmd("EXISTS").arg(&confirmed)).await.unwrap();
            assert_eq!(held, confirmed.len(), "what was confirmed in each round");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_keeps_nothing_comes_back_whenever_all_its_pods_are_deleted() {
    survives(false, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_keeps_data_comes_back_whenever_all_its_pods_are_deleted() {
    survives(true, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_keeps_nothing_comes_back_without_the_pod_of_its_primary() {
    let mut layer = Layer::in_sync(&Options { keeps_data: false, ..Options::default() }).await;
    layer.mark_initialised();
    let primary = layer.primary().await.unwrap();
    layer.stop_all(|_| Duration::ZERO).await;
    let began = Instant::now();
    for id in layer.nodes.keys().copied().filter(|id| *id != primary).collect::<Vec<_>>() {
        layer.start_node(id);
    }
    eventually("there is a primary", Duration::from_secs(90), async || layer.primary().await.is_some()).await;
    println!("without {primary}: a primary after {:.2?}", began.elapsed());
    layer.start_node(primary);
    layer.wait_until_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_layer_forms_while_one_data_pod_cannot_start() {
    let mut layer = Layer::prepare(&Options::default());
    let began = Instant::now();
    for id in layer.nodes.keys().copied().filter(|id| *id != NodeId::data(0)).collect::<Vec<_>>() {
        layer.start_node(id);
    }
    eventually("there is a primary", Duration::from_secs(90), async || layer.primary().await.is_some()).await;
    println!("without redis-0: a primary after {:.2?}", began.elapsed());
    layer.start_node(NodeId::data(0));
    layer.wait_until_in_sync().await;
}
