//! Data that only one node has and that a full sync replaces: it is in a folder afterwards, and the node's answer names it.

use std::path::Path;
use std::time::Duration;

use redoubt::model::lineage::AsideReason;
use redoubt::model::node_config::REDIS_PORT;
use redoubt::model::{NodeId, Role};
use redoubt::redis::{Connection, sentinel, server};

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::history::Writers;
use crate::support::layer::{Layer, Options, SOON};

/// Settings of a layer without append-only files, with a snapshot soon after each write.
pub const SNAPSHOTS_ONLY: &[(&str, &str)] = &[("appendonly", "no"), ("save", "1 1")];

/// Whether the append-only files of a folder have the write of [`what_a_demoted_server_had_alone_is_kept_aside_until_a_person_drops_it`].
fn holds_it(folder: &Path) -> bool {
    holds(folder, "only-here")
}

/// Whether the append-only files of a folder have a key of this name.
fn holds(folder: &Path, key: &str) -> bool {
    let files = std::fs::read_dir(folder.join("appendonlydir")).into_iter().flatten().flatten();
    let mut texts = files.filter_map(|file| std::fs::read(file.path()).ok());
    texts.any(|text| text.windows(key.len()).any(|words| words == key.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_demoted_server_had_alone_is_kept_aside_until_a_person_drops_it() {
    let layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    // A second primary for a moment, as one behind a partition is.
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    let held = layer.keys(alone).await.unwrap();
    eventually("its agent saw it", SOON, async || {
        let record = layer.lineage(alone).await.and_then(|answer| answer.lineage);
        record.is_some_and(|record| record.role == Role::Primary && record.keys == held)
    })
    .await;
    // Right after a sync there are none yet.
    let links = layer.data(alone).join("aside/.standing");
    eventually("there are links to its files", SOON, async || holds_it(&links)).await;
    server::replica_of(&operator, &layer.nodes[&primary].address.0, REDIS_PORT).await.unwrap();
    let aside = async || layer.lineage(alone).await.map(|answer| answer.aside).unwrap_or_default();
    let took = eventually("what it had is kept", SOON, async || !aside().await.is_empty()).await;
    println!("kept aside {took:.2?} after the demotion");
    let kept = aside().await.remove(0);
    assert_eq!(kept.reason, AsideReason::Replaced);
    assert_eq!(kept.lineage.map(|record| (record.role, record.keys)), Some((Role::Primary, held)));
    let folder = layer.data(alone).join("aside").join(&kept.folder);
    assert!(holds_it(&folder), "the kept file has the write");
    layer.wait_until_in_sync().await;
    for id in layer.data_ids().into_iter().filter(|id| *id != alone) {
        assert!(layer.lineage(id).await.unwrap().aside.is_empty(), "{id}");
    }
    layer.edit_documents(|config| config.drop_aside.extend([kept.folder.clone()]));
    eventually("it is dropped", SOON, async || aside().await.is_empty() && !folder.exists()).await;
}

/// As above, where the Sentinels demote it while it is being stopped: its links were renewed from the other's files at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_second_primary_had_alone_is_there_or_kept_aside_after_it_was_stopped_in_order() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    // Right after a sync there are none yet.
    let links = layer.data(alone).join("aside/.standing");
    eventually("there are links to its files", SOON, async || links.exists()).await;
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    eventually("its agent saw it", SOON, async || {
        let record = layer.lineage(alone).await.and_then(|answer| answer.lineage);
        record.is_some_and(|record| record.role == Role::Primary)
    })
    .await;
    layer.terminate_node(alone).await;
    println!("demoted before its end: {}", !holds_it(&layer.data(alone)));
    layer.start_node(alone);
    eventually("it follows, or says that it waits for a person", SOON, async || {
        let answer = layer.lineage(alone).await;
        let waits = answer.as_ref().is_some_and(|answer| answer.needs_person.is_some());
        waits || answer.is_some_and(|answer| answer.lineage.is_some_and(|own| own.synced && own.link_up))
    })
    .await;
    let is_there = async || {
        let aside = layer.lineage(alone).await.map(|answer| answer.aside).unwrap_or_default();
        let kept = aside.iter().map(|kept| layer.data(alone).join("aside").join(&kept.folder));
        kept.chain([layer.data(alone)]).any(|folder| holds_it(&folder))
    };
    eventually("the write is there or kept aside", SOON, is_there).await;
}

/// Makes a replica a second primary that writes a file of 200 keys in some seconds, and has it write a key. Afterwards its agent knows of
/// both. Answers the operator's connection to it.
async fn write_alone(layer: &Layer, alone: NodeId, key: &str) -> Connection {
    layer.wait_until_in_sync().await;
    let links = layer.data(alone).join("aside/.standing");
    eventually("there are links to its files", SOON, async || links.exists()).await;
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    let slow = redis::cmd("CONFIG").arg("SET").arg("rdb-key-save-delay").arg(15_000).to_owned();
    operator.query::<()>(&slow).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg(key).arg(1)).await.unwrap();
    eventually("its agent saw it, and has links to its files", SOON, async || {
        let record = layer.lineage(alone).await.and_then(|answer| answer.lineage);
        holds(&links, key) && record.is_some_and(|record| record.role == Role::Primary)
    })
    .await;
    operator
}

/// Waits until a folder of a node has the key, and has it dropped.
async fn is_kept_and_dropped(layer: &Layer, alone: NodeId, key: &str) {
    let aside = async || layer.lineage(alone).await.map(|answer| answer.aside);
    eventually("the write is kept aside", SOON, async || {
        let folders = aside().await.unwrap_or_default().into_iter().map(|kept| kept.folder);
        folders.into_iter().any(|folder| holds(&layer.data(alone).join("aside").join(folder), key))
    })
    .await;
    let folders: Vec<String> = aside().await.unwrap().into_iter().map(|kept| kept.folder).collect();
    layer.edit_documents(|config| config.drop_aside.extend(folders.clone()));
    eventually("it is dropped", SOON, async || aside().await.is_some_and(|aside| aside.is_empty())).await;
}

/// As above, where it is still writing its first append-only file of the other's data as the order comes. Redis refuses to stop then, so it
/// lived on until it was killed, and the record on its volume was one of files that are not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_in_data_as_it_is_stopped_ends_in_order_and_what_it_had_alone_is_kept() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    for (round, after) in [0, 200, 400, 600, 800].map(Duration::from_millis).into_iter().enumerate() {
        let key = format!("only-here-{round}");
        let operator = write_alone(&layer, alone, &key).await;
        let address = layer.nodes[&primary].address.0.clone();
        let demoted = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            server::replica_of(&operator, &address, REDIS_PORT).await
        });
        layer.terminate_node(alone).await;
        // Where the server has ended before, its connection is closed.
        let _ = demoted.await.unwrap();
        let record = std::fs::read_to_string(layer.data(alone).join("redoubt/lineage.json")).unwrap();
        println!("demoted {after:?} after the order; it still has its own files: {}", holds(&layer.data(alone), &key));
        assert!(record.contains(r#""cleanStop":true"#), "it was killed: {record}");
        layer.start_node(alone);
        is_kept_and_dropped(&layer, alone, &key).await;
    }
}

/// As above, where it is killed before it has that file.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_had_alone_is_kept_where_it_is_killed_as_it_takes_in_data() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let operator = write_alone(&layer, alone, "only-here").await;
    server::replica_of(&operator, &layer.nodes[&primary].address.0, REDIS_PORT).await.unwrap();
    let followed = layer.lineage(primary).await.and_then(|answer| answer.lineage).unwrap().replication_id;
    eventually("its record is of the other's data, in no append-only file", SOON, async || {
        let record = std::fs::read_to_string(layer.data(alone).join("redoubt/lineage.json")).unwrap();
        record.contains(&followed.0) && record.contains(r#""appendOnly":false"#)
    })
    .await;
    layer.kill_node(alone);
    layer.start_node(alone);
    is_kept_and_dropped(&layer, alone, "only-here").await;
}

/// As above, of a layer that writes snapshots only.
#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_that_a_demoted_server_had_alone_is_kept_aside() {
    let layer = Layer::in_sync(&Options { min_replicas: 0, settings: SNAPSHOTS_ONLY, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    let has_it = |folder: &Path| {
        std::fs::read(folder.join("dump.rdb")).is_ok_and(|file| file.windows(9).any(|words| words == b"only-here"))
    };
    // Before a snapshot has it, it is in memory only.
    eventually("it is in a snapshot", SOON, async || has_it(&layer.data(alone))).await;
    eventually("the links are to that one", SOON, async || has_it(&layer.data(alone).join("aside/.standing"))).await;
    server::replica_of(&operator, &layer.nodes[&primary].address.0, REDIS_PORT).await.unwrap();
    let aside = async || layer.lineage(alone).await.map(|answer| answer.aside).unwrap_or_default();
    eventually("what it had is kept", SOON, async || !aside().await.is_empty()).await;
    let kept = aside().await.remove(0);
    assert_eq!(kept.reason, AsideReason::Replaced);
    assert!(kept.lineage.is_some_and(|record| record.append_only == Some(false)), "the record is that of a snapshot");
    assert!(has_it(&layer.data(alone).join("aside").join(&kept.folder)), "the kept snapshot has the write");
    layer.wait_until_in_sync().await;
}

/// It was taken for an empty node, because what stands for a missing record counts no keys.
#[tokio::test(flavor = "multi_thread")]
async fn data_without_a_record_is_kept_aside_before_a_primary_replaces_it() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    layer.terminate_node(replica).await;
    let data = layer.data(replica);
    std::fs::remove_file(data.join("redoubt/lineage.json")).unwrap();
    // What the links to the files say of them as well: as where the files come from another volume.
    std::fs::remove_dir_all(data.join("aside/.standing")).unwrap();
    layer.start_node(replica);
    let aside = async || layer.lineage(replica).await.map(|answer| answer.aside).unwrap_or_default();
    eventually("its files are kept", SOON, async || !aside().await.is_empty()).await;
    let kept = aside().await.remove(0);
    assert_eq!(kept.reason, AsideReason::Replaced);
    assert!(kept.lineage.is_some_and(|record| record.is_of_unknown_origin()));
    layer.wait_until_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_that_lose_nothing_keep_nothing() {
    let mut layer = Layer::in_sync(&Options::default()).await;
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
        layer.wait_until_in_sync().await;
    }
    writers.finish().await;
    layer.restart_all().await;
    layer.wait_until_in_sync().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
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
    let mut layer = Layer::in_sync(&Options { detection: 60_000, ..Options::default() }).await;
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
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// As above, where the volume hangs as a promoted server's agent writes the chain of histories: the agent's loop waited for that, so
/// nothing handed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_primary_whose_volume_hangs_under_the_chain_of_histories_hands_over() {
    // Long: only its agent can know.
    let options = Options { data_nodes: 2, detection: 60_000, min_replicas: 0, ..Options::default() };
    let mut layer = Layer::in_sync(&options).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let first = layer.primary().await.unwrap();
    let second = layer.data_ids().into_iter().find(|id| *id != first).unwrap();
    let folder = layer.data(second).join("redoubt");
    eventually("the replica has the chain of its primary", SOON, async || {
        let id = layer.lineage(second).await.and_then(|answer| answer.lineage).map(|own| own.replication_id);
        let chain = std::fs::read_to_string(folder.join("ancestry.json")).unwrap_or_default();
        id.is_some_and(|id| chain.contains(&id.0))
    })
    .await;
    let obstacle = folder.join("ancestry.part");
    assert!(std::process::Command::new("mkfifo").arg(&obstacle).status().unwrap().success());
    layer.terminate_node(first).await;
    layer.start_node(first);
    eventually("the replica is primary", SOON, async || layer.primary().await == Some(second)).await;
    let took = eventually("it is not ready", SOON, async || {
        layer.readiness(second).await.is_some_and(|text| text.contains("DiskHangs") && !text.contains("200 OK"))
    })
    .await;
    println!("not ready {took:.2?} after it was seen as primary");
    let took = eventually("the other one is primary again", SOON, async || layer.primary().await == Some(first)).await;
    println!("handed over {took:.2?} later");
    assert!(layer.probe(second, "live").await.unwrap().contains("200 OK"));
}

/// As above, where the volume hangs as the agent of a demoted server keeps what only that had: the agent's loop waited for that, and took
/// no order to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_server_whose_volume_hangs_while_its_data_is_kept_says_so_and_can_be_stopped() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let alone = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    let links = layer.data(alone).join("aside/.standing");
    eventually("its agent saw it, and has links to its files", SOON, async || {
        let record = layer.lineage(alone).await.and_then(|answer| answer.lineage);
        holds_it(&links) && record.is_some_and(|record| record.role == Role::Primary)
    })
    .await;
    let obstacle = links.join("note.part");
    assert!(std::process::Command::new("mkfifo").arg(&obstacle).status().unwrap().success());
    server::replica_of(&operator, &layer.nodes[&primary].address.0, REDIS_PORT).await.unwrap();
    let took = eventually("it says that its volume hangs", SOON, async || {
        layer.readiness(alone).await.is_some_and(|text| text.contains("DiskHangs") && !text.contains("200 OK"))
    })
    .await;
    println!("says so {took:.2?} after the demotion");
    let began = std::time::Instant::now();
    layer.terminate_node(alone).await;
    println!("ended {:.2?} after it was told to", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20));
    std::fs::remove_file(&obstacle).unwrap();
    layer.start_node(alone);
    layer.wait_until_in_sync().await;
    let aside = layer.lineage(alone).await.map(|answer| answer.aside).unwrap_or_default();
    let kept = aside.iter().map(|kept| layer.data(alone).join("aside").join(&kept.folder));
    assert!(kept.chain([links]).any(|folder| holds_it(&folder)), "{aside:?}");
}
