//! A client that knows one address and connects again at once: it is never left on a replica.

use std::time::{Duration, Instant};

use redoubt::model::NodeId;
use redoubt::model::node_config::REDIS_PORT;
use redoubt::redis::{Class, Connection, Endpoint, server};
use tokio::task::JoinHandle;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// How long a connection may be refused writes before it is cut.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// What such a client met.
#[derive(Default)]
struct Met {
    connections: usize,
    refused: usize,
    longest: Duration,
}

/// Writes to one address until it is told to stop.
struct Client {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    task: JoinHandle<Met>,
}

impl Client {
    fn start(endpoint: Endpoint) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_over = std::sync::Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut met = Met::default();
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok(connection) = Connection::open(&endpoint).await else { continue };
                met.connections += 1;
                let mut since: Option<Instant> = None;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    match connection.query::<()>(redis::cmd("SET").arg("here").arg(1)).await {
                        Ok(()) => since = None,
                        Err(error) if error.class() == Class::ReadOnly => {
                            met.refused += 1;
                            let refused_for = since.get_or_insert_with(Instant::now).elapsed();
                            met.longest = met.longest.max(refused_for);
                        }
                        Err(error) if error.class() == Class::Unreachable => break,
                        Err(_) => {}
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            met
        });
        Self { stop, task }
    }

    async fn finish(self) -> Met {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn another_is_primary(layer: &Layer, than: NodeId) {
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != than)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_primary_that_stood_still_and_was_replaced_is_cut() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 50).await;
    let primary = layer.primary().await.unwrap();
    let client = Client::start(layer.endpoint(primary));
    layer.freeze_engine(primary, true);
    another_is_primary(&layer, primary).await;
    layer.freeze_engine(primary, false);
    layer.wait_until_in_sync().await;
    // It goes on as a replica's client would: each time it comes back it is cut.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let met = client.finish().await;
    println!(
        "stopped and replaced: {} connections, {} refused, longest {:.2?}",
        met.connections, met.refused, met.longest
    );
    assert!(met.refused > 0, "the precondition does not hold");
    assert!(met.longest < CUT_WITHIN, "{:?}", met.longest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_back_before_the_dead_engine_is_never_stays_on_the_replica_that_it_became() {
    let layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    layer.mark_initialised();
    let kills = std::env::var("REDOUBT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let (mut longest, mut refused) = (Duration::ZERO, 0);
    for _ in 0..kills {
        write_some(&layer, 50).await;
        let primary = layer.primary().await.unwrap();
        let client = Client::start(layer.endpoint(primary));
        layer.kill_engine(primary);
        another_is_primary(&layer, primary).await;
        layer.wait_until_in_sync().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let met = client.finish().await;
        (longest, refused) = (longest.max(met.longest), refused + met.refused);
    }
    println!("{kills} engines killed under a client that is back at once: {refused} refused, longest {longest:.2?}");
    assert!(refused > 0, "the precondition does not hold");
    assert!(longest < CUT_WITHIN, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_from_a_replica_is_left_alone_while_another_is_cut() {
    let layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let reader = Connection::open(&layer.endpoint(replica)).await.unwrap();
    reader.query::<Option<String>>(redis::cmd("GET").arg("here")).await.unwrap();
    let writer = Client::start(layer.endpoint(replica));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let met = writer.finish().await;
    assert!(met.connections > 2, "it was not cut: {}", met.connections);
    assert!(met.longest < CUT_WITHIN, "{:?}", met.longest);
    reader.query::<Option<String>>(redis::cmd("GET").arg("here")).await.unwrap();
}

/// It writes nothing, so it meets no refusal: it would go on to read where nothing happens any more. Sentinels cut the
/// clients of what they demote, a person does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_reads_is_cut_when_its_primary_is_demoted_by_hand() {
    // Long: no Sentinel takes part.
    let layer = Layer::in_sync(&Options { detection: 300_000, ..Options::default() }).await;
    layer.mark_initialised();
    let primary = layer.primary().await.unwrap();
    let other = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let reader = Connection::open(&layer.endpoint(primary)).await.unwrap();
    let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
    server::replica_of(&operator, &layer.nodes[&other].address.0, REDIS_PORT).await.unwrap();
    eventually("the reader is cut", SOON, async || {
        let read = reader.query::<Option<String>>(redis::cmd("GET").arg("here")).await;
        read.is_err_and(|error| error.class() == Class::Unreachable)
    })
    .await;
}
