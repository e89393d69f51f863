//! Data that only one node has and that a full sync replaces: it is in a folder afterwards, and the node's answer names it.

use redoubt::model::Role;
use redoubt::model::lineage::AsideReason;
use redoubt::redis::{Connection, sentinel, server};

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::history::Writers;
use crate::support::layer::{Layer, Options, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_a_plain_failover_rolls_back_are_kept_aside() {
    // Any replica counts as enough: the primary takes writes that none of them has.
    let mut layer = Layer::whole(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    // Its replicas stand still, so what it takes now is its own; then one of them is elected.
    let others: Vec<_> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
    let connection = Connection::open(&layer.endpoint(primary)).await.unwrap();
    let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
    let held = layer.keys(primary).await.unwrap();
    for id in &others {
        layer.freeze_engine(*id, true);
    }
    connection.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    eventually("its record says so", SOON, async || {
        let record = layer.lineage(primary).await.and_then(|answer| answer.lineage);
        record.is_some_and(|record| record.keys == held + 1)
    })
    .await;
    // The primary stands still instead of them: cut off, as the Sentinels see it. What is in their sockets they have.
    server::cut_subscribers(&operator).await.unwrap();
    let _ = operator.query::<u64>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await;
    layer.freeze_engine(primary, true);
    for id in &others {
        layer.freeze_engine(*id, false);
    }
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    layer.freeze_engine(primary, false);
    layer.wait_until_whole().await;
    let now = layer.primary().await.unwrap();
    let held_now: bool = Connection::open(&layer.endpoint(now))
        .await
        .unwrap()
        .query(redis::cmd("EXISTS").arg("only-here"))
        .await
        .unwrap();
    let aside = async || layer.lineage(primary).await.map(|answer| answer.aside).unwrap_or_default();
    if held_now {
        // The replicas had it in their sockets: then nothing was lost, and nothing is kept.
        println!("the write was in the replicas' sockets: nothing to keep");
        return;
    }
    eventually("what it had is kept", SOON, async || !aside().await.is_empty()).await;
    let kept = aside().await.remove(0);
    assert_eq!(kept.reason, AsideReason::Replaced);
    assert_eq!(kept.lineage.map(|record| record.role), Some(Role::Primary));
    let folder = layer.data(primary).join("aside").join(&kept.folder).join("appendonlydir");
    let holds_it = std::fs::read_dir(folder)
        .unwrap()
        .any(|file| std::fs::read(file.unwrap().path()).unwrap().windows(9).any(|words| words == b"only-here"));
    assert!(holds_it, "the kept file has the write");
    layer.terminate_node(primary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_that_lose_nothing_keep_nothing() {
    let mut layer = Layer::whole(&Options::default()).await;
    layer.mark_initialised();
    let writers = Writers::start(2, &layer.sentinel_endpoints(), &layer.master_name);
    for round in 0..2 {
        let primary = layer.primary().await.unwrap();
        let before = writers.acknowledged();
        eventually("writes arrive", SOON, async || writers.acknowledged() > before + 100).await;
        // One node is away meanwhile: it comes back two histories later.
        let away = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
        if round == 0 {
            layer.terminate_node(primary).await;
            layer.start_node(primary);
        } else {
            layer.terminate_node(away).await;
            layer.terminate_node(primary).await;
            layer.start_node(primary);
            layer.start_node(away);
        }
        layer.wait_until_whole().await;
    }
    writers.finish().await;
    layer.restart_all().await;
    layer.wait_until_whole().await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for id in layer.data_ids() {
        let answer = layer.lineage(id).await.unwrap();
        assert!(answer.aside.is_empty() && answer.unusable.is_none(), "{id}: {answer:?}");
    }
    let first = layer.sentinel_endpoints().remove(0);
    let named = sentinel::primary_address(&Connection::open(&first).await.unwrap(), &layer.master_name).await;
    assert!(named.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_volume_hangs_hands_over_and_can_still_be_stopped() {
    // Long: only its agent can know.
    let mut layer = Layer::whole(&Options { detection: 60_000, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    // A file that cannot be opened for as long as nobody reads it: as a write to a volume that is gone.
    let obstacle = layer.data(primary).join("redoubt/lineage.part");
    assert!(std::process::Command::new("mkfifo").arg(&obstacle).status().unwrap().success());
    let began = std::time::Instant::now();
    let writers = Writers::start(1, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("it is not ready", SOON, async || {
        layer.readiness(primary).await.is_some_and(|text| text.contains("DiskHangs") && !text.contains("200 OK"))
    })
    .await;
    println!("not ready after {:.2?}", began.elapsed());
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    println!("handed over after {:.2?}", began.elapsed());
    assert!(layer.probe(primary, "live").await.unwrap().contains("200 OK"));
    writers.finish().await;
    let began = std::time::Instant::now();
    layer.terminate_node(primary).await;
    println!("ended {:.2?} after it was told to", began.elapsed());
    assert!(began.elapsed() < std::time::Duration::from_secs(15));
}
