//! Persistence that is changed: a node loads the file that its data is in, whatever is wanted by now. And a record that cannot be read.

use std::fs;
use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::model::lineage::Lineage;
use redoubt::redis::info::AppendOnly;
use redoubt::redis::{Connection, server};

use crate::agent_process::write_some;
use crate::support::engine_process::Engine;
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, SOON};

const WITH_FILE: [(&str, &str); 2] = [("appendonly", "yes"), ("shutdown-on-sigterm", "nosave")];
const WITH_SNAPSHOTS: [(&str, &str); 2] = [("appendonly", "no"), ("shutdown-on-sigterm", "default")];

/// What the operator writes into the documents; running servers are told by it.
fn want(layer: &Layer, settings: [(&'static str, &'static str); 2]) {
    layer.edit_documents(|config| {
        config.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    });
}

/// Sets it on every server, as the operator does, and waits until the data is where it is wanted.
async fn config_set(layer: &Layer, settings: [(&'static str, &'static str); 2], state: AppendOnly) {
    for id in layer.data_ids() {
        let connection = Connection::open(&layer.operator_on(id)).await.unwrap();
        let changes = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(server::config_set_all(&connection, &changes).await.unwrap(), vec![]);
        eventually("the data is in that file", SOON, async || {
            server::info(&connection).await.unwrap().append_only() == state
        })
        .await;
        let is_recorded = async || {
            let lineage = layer.lineage(id).await.and_then(|answer| answer.lineage);
            lineage.and_then(|lineage| lineage.append_only) == Some(state == AppendOnly::Whole)
        };
        eventually("the record says so", SOON, is_recorded).await;
    }
}

fn kill_all(layer: &mut Layer) {
    let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    for id in ids {
        layer.start_node(id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_snapshots_survives_the_change_to_an_append_only_file_at_any_time() {
    let settings = &[("appendonly", "no"), ("save", "3600 1"), ("shutdown-on-sigterm", "default")];
    let mut layer = Layer::in_sync(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_in_sync().await;
    let before = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // Wanted, and all pods are made anew before any server was told.
    want(&layer, WITH_FILE);
    layer.restart_all().await;
    layer.wait_until_in_sync().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, before);
    config_set(&layer, WITH_FILE, AppendOnly::Whole).await;
    kill_all(&mut layer);
    layer.wait_until_in_sync().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_an_append_only_file_survives_the_change_to_snapshots_and_an_old_file_is_never_loaded() {
    let settings = &[("save", "3600 1"), ("shutdown-on-sigterm", "nosave")];
    let mut layer = Layer::in_sync(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_in_sync().await;
    let before = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    want(&layer, WITH_SNAPSHOTS);
    kill_all(&mut layer);
    layer.wait_until_in_sync().await;
    let kept = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // `appendfsync everysec`, and a kernel that lives on: nothing is lost.
    assert_eq!(kept, before);
    config_set(&layer, WITH_SNAPSHOTS, AppendOnly::Off).await;
    write_some(&layer, 600).await;
    layer.wait_until_in_sync().await;
    let more = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // The files of before are still there, and an append-only file is wanted again when all are stopped.
    want(&layer, WITH_FILE);
    layer.restart_all().await;
    layer.wait_until_in_sync().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_tried_again_after_a_pause() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    layer.terminate_node(replica).await;
    let record = layer.data(replica).join("redoubt/lineage.json");
    let text = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    fs::create_dir(&record).unwrap();
    let log = layer.data(replica).with_file_name("log");
    let tries = || fs::read_to_string(&log).unwrap().matches("the engine ended").count();
    let before = tries();
    layer.start_node(replica);
    eventually("it is tried", SOON, async || tries() > before).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(tries() - before <= 4, "{} tries in two seconds", tries() - before);
    // An answer without a record would say that the volume is empty: a peer with less went on next to it.
    assert_eq!(layer.lineage(replica).await, None, "it tells of a volume that it has not read");
    fs::remove_dir(&record).unwrap();
    fs::write(&record, text).unwrap();
    layer.wait_until_in_sync().await;
}

/// A volume without room, for one process: a write beyond the limit fails as one that finds no room does.
fn limit_files(pid: u32, bytes: &str) {
    let limit = ["--pid", &pid.to_string(), &format!("--fsize={bytes}")].map(str::to_owned);
    assert!(std::process::Command::new("prlimit").args(limit).status().unwrap().success());
}

/// The command in whose turn the file first finds no room is acknowledged. The record spoke of it, and after a sudden end of all nodes
/// the primary that had it in no file replaced the replica that had.
#[tokio::test(flavor = "multi_thread")]
async fn what_found_no_room_on_the_volume_does_not_count_as_kept_there() {
    let folder = std::env::temp_dir().join(format!("redoubt-full-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("redis-server");
    let script = "#!/bin/sh\ntrap '' XFSZ\nexec redis-server-of-the-path \"$@\"\n";
    let found = std::process::Command::new("sh").args(["-c", "command -v redis-server"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    fs::write(&program, script.replace("redis-server-of-the-path", found.trim())).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let engine = Some(Engine::new("of the path", &program.display().to_string()));
    let mut layer = Layer::in_sync(&Options { engine, min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    layer.wait_until_in_sync().await;
    let primary = layer.primary().await.unwrap();
    let connection = Connection::open(&layer.endpoint(primary)).await.unwrap();
    limit_files(layer.engine_pids(primary)[0], "1");
    let set = || redis::cmd("SET").arg("h:acknowledged").arg("x".repeat(1_000)).to_owned();
    connection.query::<()>(&set()).await.unwrap();
    // A disk that is busy keeps writes from the file for up to two seconds: they are acknowledged as well.
    let mut refused = None;
    eventually("a write is refused", SOON, async || {
        refused = connection.query::<()>(&set()).await.err();
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert!(refused.server_text().is_some_and(|text| text.contains("MISCONF")), "{refused}");
    let offset = layer.replication(primary).await.unwrap().offset();
    let on_volume = |id| {
        let text = fs::read_to_string(layer.data(id).join("redoubt/lineage.json")).unwrap_or_default();
        serde_json::from_str::<Lineage>(&text).ok()
    };
    for id in layer.data_ids() {
        eventually("the record of each node is of a later time", SOON, async || {
            let record = on_volume(id);
            if id == primary {
                return record.is_some_and(|record| record.offset < offset);
            }
            record.is_some_and(|record| record.offset >= offset)
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(on_volume(primary).unwrap().offset < offset, "it speaks of what no file has");
    kill_all(&mut layer);
    layer.wait_until_in_sync().await;
    for id in layer.data_ids() {
        assert!(keys_of(&layer.endpoint(id)).await.contains("h:acknowledged"), "{id}");
    }
    let _ = fs::remove_dir_all(&folder);
}
