//! Two data nodes that serve as primaries while no Sentinel remembers one.

use std::fs;

use redoubt::model::lineage::AsideReason;
use redoubt::model::node_config::REDIS_PORT;
use redoubt::model::{NodeId, Role};
use redoubt::redis::{Connection, server};

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

async fn write(layer: &Layer, id: NodeId, key: &str) {
    let application = Connection::open(&layer.endpoint(id)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg(key).arg(1)).await.unwrap();
}

/// A second primary, as one that was cut off is, and Sentinels that lost their volumes. The first and the second primary.
async fn two_primaries(layer: &mut Layer) -> (NodeId, NodeId) {
    let first = layer.primary().await.unwrap();
    let second = *layer.data_ids().iter().rfind(|id| **id != first).unwrap();
    let sentinels = layer.sentinel_ids();
    for id in &sentinels {
        layer.kill_node(*id);
        layer.wipe(*id);
    }
    let operator = Connection::open(&layer.operator_on(second)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    write(layer, second, "only-here").await;
    eventually("its agent saw it", SOON, async || {
        let record = layer.lineage(second).await.and_then(|answer| answer.lineage);
        record.is_some_and(|record| record.role == Role::Primary)
    })
    .await;
    for id in sentinels {
        layer.start_node(id);
    }
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_that_no_election_orders_both_wait_for_a_person() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    let (first, second) = two_primaries(&mut layer).await;
    for id in [first, second] {
        let took = eventually("it says that it waits for a person", SOON, async || {
            let answer = layer.lineage(id).await;
            answer.is_some_and(|answer| answer.needs_person.is_some_and(|why| why.contains("SeveralPrimaries")))
        })
        .await;
        println!("{id} says it after {took:.2?}");
    }
    layer.edit_documents(|config| config.accept_loss = Some(second.ordinal));
    eventually("the chosen node is primary", SOON, async || layer.primary().await == Some(second)).await;
    layer.wait_until_in_sync().await;
    let application = Connection::open(&layer.endpoint(second)).await.unwrap();
    let kept: Option<String> = application.query(redis::cmd("GET").arg("only-here")).await.unwrap();
    assert!(kept.is_some(), "the data that the person chose is gone");
    let aside = layer.lineage(first).await.unwrap().aside;
    assert!(aside.iter().any(|aside| aside.reason == AsideReason::LossAccepted), "{aside:?}");
    eventually("no node waits any more", SOON, async || {
        let mut waits = false;
        for id in layer.data_ids() {
            waits |= layer.lineage(id).await.is_none_or(|answer| answer.needs_person.is_some());
        }
        !waits
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_keeps_nothing_has_one_primary_again_by_itself() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, keeps_data: false, ..Options::default() }).await;
    two_primaries(&mut layer).await;
    let took = eventually("one node is primary", SOON, async || layer.check_in_sync().await.is_ok()).await;
    println!("whole after {took:.2?}");
}

/// As one that was cut off while the Sentinels elected another and then lost their volumes.
#[tokio::test(flavor = "multi_thread")]
async fn the_primary_of_the_epoch_before_follows_and_what_only_it_has_is_kept_aside() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    let first = layer.primary().await.unwrap();
    layer.freeze_engine(first, true);
    layer.freeze_agent(first, true);
    eventually("another is elected", SOON, async || layer.primary().await.is_some_and(|id| id != first)).await;
    let second = layer.primary().await.unwrap();
    let epoch = async |id| layer.lineage(id).await.and_then(|answer| answer.lineage).map_or(0, |record| record.epoch);
    eventually("its record says so", SOON, async || epoch(second).await > 0).await;
    let sentinels = layer.sentinel_ids();
    for id in &sentinels {
        layer.kill_node(*id);
        layer.wipe(*id);
    }
    layer.freeze_engine(first, false);
    layer.freeze_agent(first, false);
    write(&layer, first, "only-here").await;
    write(&layer, second, "elected").await;
    for id in sentinels {
        layer.start_node(id);
    }
    let aside = async || layer.lineage(first).await.map(|answer| answer.aside).unwrap_or_default();
    let took = eventually("what it had is kept", SOON, async || !aside().await.is_empty()).await;
    println!("kept aside after {took:.2?}");
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(second));
    let kept = aside().await.remove(0);
    assert_eq!(kept.reason, AsideReason::Replaced);
    let files = fs::read_dir(layer.data(first).join("aside").join(&kept.folder).join("appendonlydir")).unwrap();
    let holds = |path| fs::read(path).unwrap().windows(9).any(|words| words == b"only-here");
    assert!(files.map(|file| file.unwrap().path()).any(holds), "the kept files lack the write");
}

/// A primary is back from behind a cut network, and its successor ends before any order reached it. The histories of `boot_histories`
/// have their Sentinels do the same.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_elect_a_primary_that_they_have_not_demoted() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, keeps_data: false, ..Options::default() }).await;
    let named = layer.primary().await.unwrap();
    let [back, away] = layer.data_ids().into_iter().filter(|id| *id != named).collect::<Vec<_>>()[..] else { panic!() };
    layer.freeze_agent(back, true);
    let operator = Connection::open(&layer.operator_on(back)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    layer.kill_node(named);
    layer.kill_node(away);
    let took = eventually("it is named", SOON, async || layer.primary().await == Some(back)).await;
    println!("elected after {took:.2?}");
    layer.freeze_agent(back, false);
    for id in [named, away] {
        layer.start_node(id);
    }
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(back));
}

/// The Sentinels name a replica, and know no node that they could elect: they lost what they knew in the middle of a failover.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_whose_sentinels_name_a_replica_tells_them_of_its_primary() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, keeps_data: false, ..Options::default() }).await;
    let named = layer.primary().await.unwrap();
    let [primary, away] = layer.data_ids().into_iter().filter(|id| *id != named).collect::<Vec<_>>()[..] else {
        panic!()
    };
    layer.kill_node(away);
    let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let operator = Connection::open(&layer.operator_on(named)).await.unwrap();
    let address = layer.endpoint(primary).address;
    server::replica_of(&operator, &address, REDIS_PORT).await.unwrap();
    for sentinel in layer.sentinel_ids() {
        let connection = Connection::open(&layer.operator_on(sentinel)).await.unwrap();
        connection.query::<()>(redis::cmd("SENTINEL").arg("RESET").arg("*")).await.unwrap();
    }
    let took = eventually("they name its primary", 2 * SOON, async || layer.primary().await == Some(primary)).await;
    println!("named after {took:.2?}");
    layer.start_node(away);
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(primary));
}
