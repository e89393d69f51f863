//! Files that the engine does not load: after a power cut whole blocks of them are zeros.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redoubt::model::NodeId;
use redoubt::model::lineage::AsideReason;
use redoubt::model::node_config::NodeConfig;
use redoubt::redis::Connection;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, SOON, WRITTEN_AT_ONCE};

/// The largest part of a node's append-only file.
fn largest(layer: &Layer, id: NodeId) -> PathBuf {
    let files = fs::read_dir(layer.data(id).join("appendonlydir")).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Writes zeros over several commands four fifths into the file, and answers what it was before.
fn damage(layer: &Layer, id: NodeId) -> (PathBuf, Vec<u8>) {
    let path = largest(layer, id);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let from = damaged.len() * 4 / 5;
    let end = damaged.len().min(from + 2_048);
    damaged[from..end].fill(0);
    fs::write(&path, damaged).unwrap();
    (path, whole)
}

/// Puts a whole file in the place of another at once: an engine that starts meanwhile would load half of one.
fn put_back(path: &Path, whole: &[u8]) {
    // Next to the data: in there it would be another file of the node.
    let part = path.ancestors().nth(3).unwrap().join("whole.part");
    fs::write(&part, whole).unwrap();
    fs::rename(part, path).unwrap();
}

/// Writes keys in batches.
async fn fill(layer: &Layer, keys: usize) {
    let connection = Connection::open(&layer.endpoint(layer.primary().await.unwrap())).await.unwrap();
    for batch in 0..keys / 1_000 {
        let commands: Vec<_> = (0..1_000)
            .map(|number| redis::cmd("SET").arg(format!("k{batch}-{number}")).arg("x".repeat(50)).clone())
            .collect();
        for reply in connection.query_all(&commands).await.unwrap() {
            reply.unwrap();
        }
    }
    let waited: usize = connection.query(redis::cmd("WAIT").arg(2).arg(1_500)).await.unwrap();
    assert_eq!(waited, 2);
}

async fn stop_all(layer: &mut Layer) -> Vec<NodeId> {
    layer.stop_all(|_| Duration::ZERO).await;
    layer.nodes.keys().copied().collect()
}

async fn kept(layer: &Layer, id: NodeId) -> Vec<AsideReason> {
    let aside = layer.lineage(id).await.map(|answer| answer.aside).unwrap_or_default();
    let folders = layer.data(id).join("aside");
    assert!(aside.iter().all(|kept| folders.join(&kept.folder).join("appendonlydir").exists()), "{aside:?}");
    aside.into_iter().map(|kept| kept.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_file_is_damaged_is_filled_from_its_primary() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    layer.terminate_node(replica).await;
    damage(&layer, replica);
    layer.start_node(replica);
    println!("a replica with a damaged file: whole after {:.2?}", layer.wait_until_in_sync().await);
    assert_eq!(layer.primary().await, Some(primary));
    assert_eq!(kept(&layer, replica).await, [AsideReason::Damaged]);
    assert_eq!(kept(&layer, primary).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_named_primary_is_no_reason_to_stand_still_while_replicas_are_whole() {
    // With the delay it loads for two seconds, as a large dataset does: the engine says that it loads, and then ends.
    let settings = &[("key-load-delay", "100")];
    let mut layer = Layer::in_sync(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    fill(&layer, 20_000).await;
    let (primary, held) = (layer.primary().await.unwrap(), 20_000);
    let ids = stop_all(&mut layer).await;
    // Handed over or not: the one that has the latest record as primary is named.
    damage(&layer, primary);
    let began = Instant::now();
    for id in ids {
        layer.start_node(id);
    }
    layer.wait_until_in_sync().await;
    println!("damaged after a clean stop: whole after {:.2?}", began.elapsed());
    assert_eq!(layer.keys(layer.primary().await.unwrap()).await, Some(held));
    assert_eq!(kept(&layer, primary).await, [AsideReason::Damaged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_killed_together_over_a_damaged_file_of_the_primary_take_writes_again_soon() {
    let mut layer =
        Layer::in_sync(&Options { detection: 5_000, settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 500).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    damage(&layer, primary);
    let began = Instant::now();
    for id in layer.data_ids() {
        layer.kill_engine(id);
    }
    let mut now = None;
    eventually("another takes a write", SOON, async || {
        now = layer.primary().await;
        let Some(now) = now.filter(|id| *id != primary) else { return false };
        let Ok(connection) = Connection::open(&layer.endpoint(now)).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg("after").arg(1)).await.is_ok()
    })
    .await;
    let took = began.elapsed();
    println!("all engines killed, the primary's file damaged: a write after {took:.2?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let missing = held.difference(&keys_of(&layer.endpoint(now.unwrap())).await).count();
    assert_eq!(missing, 0);
    layer.wait_until_in_sync().await;
    assert_eq!(kept(&layer, primary).await, [AsideReason::Damaged]);
    // So that nothing is left running that the next test would meet.
    layer.terminate_node(primary).await;
}

/// The append-only file that the node appends to.
fn last(layer: &Layer, id: NodeId) -> PathBuf {
    let files = fs::read_dir(layer.data(id).join("appendonlydir")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_str().unwrap().ends_with(".incr.aof")).max().unwrap()
}

/// Cuts that file to a length, and answers what it was before.
fn shorten(layer: &Layer, id: NodeId, length: impl Fn(usize) -> usize) -> (PathBuf, Vec<u8>) {
    let path = last(layer, id);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..length(whole.len())]).unwrap();
    (path, whole)
}

async fn a_shorter_file_of_the_primary_costs_no_replica_its_data(length: impl Fn(usize) -> usize) {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    eventually("the record has the file's length", SOON, async || is_recorded(&layer, primary)).await;
    // The replicas first: they were in sync to the end.
    let ids: Vec<NodeId> = layer.nodes.keys().copied().filter(|id| *id != primary).chain([primary]).collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    shorten(&layer, primary, length);
    for id in ids {
        layer.start_node(id);
    }
    println!("a shorter file of the primary: whole after {:.2?}", layer.wait_until_in_sync().await);
    for id in layer.data_ids() {
        assert_eq!(held.difference(&keys_of(&layer.endpoint(id)).await).count(), 0, "{id} lost keys");
    }
    assert_eq!(kept(&layer, primary).await, [AsideReason::Damaged]);
}

/// Whether the node's record has the length that its last append-only file has now.
fn is_recorded(layer: &Layer, id: NodeId) -> bool {
    let path = last(layer, id);
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(layer.data(id).join("redoubt/lineage.json")).unwrap()).unwrap();
    let recorded = &record["appendFiles"][path.file_name().unwrap().to_str().unwrap()];
    recorded.as_u64() == Some(fs::metadata(&path).unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_of_the_primary_costs_no_replica_its_data() {
    a_shorter_file_of_the_primary_costs_no_replica_its_data(|length| length / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_of_the_primary_costs_no_replica_its_data() {
    a_shorter_file_of_the_primary_costs_no_replica_its_data(|_| 0).await;
}

/// One length in the middle is garbled, so all that follows is one command without an end, which an engine would cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_length_in_the_file_of_the_primary_costs_no_replica_its_data() {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    eventually("the record has the file's length", SOON, async || is_recorded(&layer, primary)).await;
    let ids: Vec<NodeId> = layer.nodes.keys().copied().filter(|id| *id != primary).chain([primary]).collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    let path = last(&layer, primary);
    let mut file = fs::read(&path).unwrap();
    let length = |at: &usize| file[*at..].starts_with(b"\r\n$") && file[at + 3].is_ascii_digit();
    let at = (file.len() / 2..file.len()).find(length).unwrap();
    file[at + 3..at + 7].copy_from_slice(b"9999");
    fs::write(&path, file).unwrap();
    for id in ids {
        layer.start_node(id);
    }
    println!("a garbled length: whole after {:.2?}", layer.wait_until_in_sync().await);
    for id in layer.data_ids() {
        assert_eq!(held.difference(&keys_of(&layer.endpoint(id)).await).count(), 0, "{id} lost keys");
    }
    assert_eq!(kept(&layer, primary).await, [AsideReason::Damaged]);
}

/// The line of the manifest that names the file with all commands is lost: an engine would load none of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lost_a_line_costs_no_replica_its_data() {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    eventually("the record has the file's length", SOON, async || is_recorded(&layer, primary)).await;
    let ids: Vec<NodeId> = layer.nodes.keys().copied().filter(|id| *id != primary).chain([primary]).collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    let manifest = layer.data(primary).join("appendonlydir/appendonly.aof.manifest");
    let lines = fs::read_to_string(&manifest).unwrap();
    let left: Vec<&str> = lines.lines().filter(|line| !line.contains(".incr.")).collect();
    assert!(!left.is_empty() && left.len() < lines.lines().count(), "{lines}");
    fs::write(&manifest, left.join("\n") + "\n").unwrap();
    for id in ids {
        layer.start_node(id);
    }
    println!("a line of the manifest: whole after {:.2?}", layer.wait_until_in_sync().await);
    for id in layer.data_ids() {
        assert_eq!(held.difference(&keys_of(&layer.endpoint(id)).await).count(), 0, "{id} lost keys");
    }
    assert_eq!(kept(&layer, primary).await, [AsideReason::Damaged]);
}

/// What a power cut leaves of a command that was being written.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_each_file_is_cut_off_and_the_layer_comes_back_by_itself() {
    for torn in ["*3\r\n$3\r\nSET\r\n$4\r\nto", "*3\r"] {
        let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
        layer.mark_initialised();
        write_some(&layer, 300).await;
        let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
        for id in &ids {
            layer.kill_node(*id);
        }
        for id in layer.data_ids() {
            let path = last(&layer, id);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, [&whole, torn.as_bytes()].concat()).unwrap();
        }
        for id in ids {
            layer.start_node(id);
        }
        println!("torn ends: whole after {:.2?}", layer.wait_until_in_sync().await);
        for id in layer.data_ids() {
            assert_eq!(held.difference(&keys_of(&layer.endpoint(id)).await).count(), 0, "{id} lost keys");
            assert_eq!(kept(&layer, id).await, [], "{id} kept what nothing is in");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_files_are_shorter_none_is_loaded_until_a_person_mends_or_chooses() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    let ids = stop_all(&mut layer).await;
    let cut: Vec<_> = layer.data_ids().into_iter().map(|id| shorten(&layer, id, |length| length / 2)).collect();
    for id in ids {
        layer.start_node(id);
    }
    for id in layer.data_ids() {
        eventually("it says that its files lost data", SOON, async || {
            let told = layer.lineage(id).await.and_then(|answer| answer.unusable);
            told.is_some_and(|words| words.contains("DataUnloadable") && words.contains("incr.aof"))
        })
        .await;
        assert_eq!(layer.engine_pids(id), [0; 0], "{id} loads what is left");
    }
    for (path, whole) in cut {
        put_back(&path, &whole);
    }
    layer.wait_until_in_sync().await;
    let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    assert_eq!(held.difference(&now).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_other_node_can_replace_stay_until_a_person_decides() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    let ids = stop_all(&mut layer).await;
    let damaged: Vec<_> = layer.data_ids().into_iter().map(|id| damage(&layer, id)).collect();
    for id in ids {
        layer.start_node(id);
    }
    // Only who is to be primary tries to load: the others follow it.
    eventually("one says that its files do not load", SOON, async || {
        let mut told = false;
        for id in layer.data_ids() {
            let answer = layer.lineage(id).await;
            told |= answer.and_then(|answer| answer.unusable).is_some_and(|words| words.contains("DataUnloadable"));
        }
        told
    })
    .await;
    for id in layer.data_ids() {
        assert_eq!(kept(&layer, id).await, [], "{id} gave its files away");
    }
    for (path, whole) in damaged {
        put_back(&path, &whole);
    }
    layer.wait_until_in_sync().await;
    let now = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    assert_eq!(held.difference(&now).count(), 0);
    for id in layer.data_ids() {
        assert_eq!(layer.lineage(id).await.unwrap().unusable, None);
    }
}

/// A person chooses what is left of the files of one node: all others follow it, and what each had is in a folder, its own as well.
#[tokio::test(flavor = "multi_thread")]
async fn where_all_files_are_shorter_the_node_that_a_person_chose_loads_what_is_left_and_all_files_are_kept() {
    // The one that the Sentinels name would start by itself, and a replica would not.
    for is_primary in [true, false] {
        let mut layer = Layer::in_sync(&Options::default()).await;
        layer.mark_initialised();
        write_some(&layer, 300).await;
        let named = layer.primary().await.unwrap();
        let held = keys_of(&layer.endpoint(named)).await;
        let chosen = *layer.data_ids().iter().find(|id| (**id == named) == is_primary).unwrap();
        let ids = stop_all(&mut layer).await;
        let whole: Vec<_> =
            layer.data_ids().into_iter().map(|id| (id, shorten(&layer, id, |length| length / 2))).collect();
        for id in ids {
            layer.start_node(id);
        }
        for id in layer.data_ids() {
            eventually("it says that its files lost data", SOON, async || {
                layer.lineage(id).await.is_some_and(|answer| answer.unusable.is_some())
            })
            .await;
        }
        layer.edit_documents(|config| config.accept_loss = Some(chosen.ordinal));
        println!("what is left was chosen: whole after {:.2?}", layer.wait_until_in_sync().await);
        let left = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
        assert!(
            !left.is_empty() && left.is_subset(&held) && left.len() < held.len(),
            "{} of {}",
            left.len(),
            held.len()
        );
        for (id, (path, of)) in whole {
            eventually("what it had is kept", SOON, async || !kept(&layer, id).await.is_empty()).await;
            let aside = layer.lineage(id).await.unwrap().aside;
            let name = path.file_name().unwrap();
            let is_half = |folder: &str| {
                let file = layer.data(id).join("aside").join(folder).join("appendonlydir").join(name);
                // Its engine cuts off the command that is not whole, and of the chosen one goes on with the same file.
                fs::read(file).is_ok_and(|kept| kept.starts_with(&of[..of.len() / 2 - 256]))
            };
            assert!(aside.iter().any(|kept| is_half(&kept.folder)), "{id}: {aside:?}");
            assert_eq!(layer.lineage(id).await.unwrap().unusable, None);
        }
    }
}

/// The others set their damaged files aside for the chosen node, so the rule started it by itself and no copy of its own was kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_node_with_older_data_that_starts_because_damaged_files_give_way_keeps_a_copy_of_its_own() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let named = layer.primary().await.unwrap();
    let chosen = *layer.data_ids().iter().rfind(|id| **id != named).unwrap();
    layer.terminate_node(chosen).await;
    let older = fs::read(last(&layer, chosen)).unwrap();
    let held = keys_of(&layer.endpoint(named)).await;
    let application = Connection::open(&layer.endpoint(named)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("later").arg(1)).await.unwrap();
    let ids = stop_all(&mut layer).await;
    for id in layer.data_ids().into_iter().filter(|id| *id != chosen) {
        damage(&layer, id);
    }
    for id in ids {
        layer.start_node(id);
    }
    eventually("one says that its files do not load", SOON, async || {
        let mut told = false;
        for id in layer.data_ids() {
            told |= layer.lineage(id).await.is_some_and(|answer| answer.unusable.is_some());
        }
        told
    })
    .await;
    layer.edit_documents(|config| config.accept_loss = Some(chosen.ordinal));
    println!("an older copy was chosen: whole after {:.2?}", layer.wait_until_in_sync().await);
    assert_eq!(layer.primary().await, Some(chosen));
    let now = keys_of(&layer.endpoint(chosen)).await;
    assert_eq!(held.difference(&now).count(), 0);
    let holds = |folder: &str| {
        let files = fs::read_dir(layer.data(chosen).join("aside").join(folder).join("appendonlydir"));
        files.is_ok_and(|files| files.flatten().any(|file| fs::read(file.path()).is_ok_and(|kept| kept == older)))
    };
    let own = async || {
        let aside = layer.lineage(chosen).await.map(|answer| answer.aside).unwrap_or_default();
        aside.into_iter().filter(|kept| kept.reason == AsideReason::LossAccepted).collect::<Vec<_>>()
    };
    // Where it was promoted as it ran, its agent keeps it at the next look.
    eventually("it is kept", SOON, async || !own().await.is_empty()).await;
    let own = own().await;
    assert!(own.len() == 1 && holds(&own[0].folder), "{own:?}");
}

/// The record named the snapshot as soon as the append-only file was off: all nodes loaded the last one, which was empty. Then a person
/// switches it on again.
#[tokio::test(flavor = "multi_thread")]
async fn a_sudden_end_of_all_nodes_after_the_append_only_file_was_switched_off_loses_nothing_that_was_in_it() {
    let is_on = |config: &mut NodeConfig, is_on: bool| {
        let text = if is_on { "yes" } else { "no" };
        config.settings.insert("appendonly".to_owned(), text.to_owned());
        config.settings.insert("save".to_owned(), "3600 1".to_owned());
        config.settings.insert("shutdown-on-sigterm".to_owned(), if is_on { "nosave" } else { "default" }.to_owned());
    };
    // At once, and after the records say that a snapshot has the data.
    for is_later in [false, true] {
        let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
        layer.mark_initialised();
        write_some(&layer, 300).await;
        let keys = layer.keys(layer.primary().await.unwrap()).await.unwrap();
        eventually("all have it", SOON, async || {
            let mut have = true;
            for id in layer.data_ids() {
                have &= layer.keys(id).await == Some(keys);
            }
            have
        })
        .await;
        layer.edit_documents(|config| is_on(config, false));
        for id in layer.data_ids() {
            let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
            for (name, value) in [("save", "3600 1"), ("shutdown-on-sigterm", "default"), ("appendonly", "no")] {
                operator.query::<()>(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await.unwrap();
            }
        }
        if is_later {
            for id in layer.data_ids() {
                let took = eventually("a snapshot has it", SOON, async || {
                    let record = layer.lineage(id).await.and_then(|answer| answer.lineage);
                    record.is_some_and(|record| record.append_only == Some(false))
                })
                .await;
                println!("{id} has a snapshot after {took:.2?}");
            }
        }
        let nodes: Vec<NodeId> = layer.nodes.keys().copied().collect();
        for id in &nodes {
            layer.kill_node(*id);
        }
        for id in nodes {
            layer.start_node(id);
        }
        layer.wait_until_in_sync().await;
        for id in layer.data_ids() {
            assert_eq!(layer.keys(id).await, Some(keys), "{id}");
        }
    }
}
