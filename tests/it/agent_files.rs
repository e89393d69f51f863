//! Persistence that is changed: a node loads the file that its data is in, whatever is wanted by now. And a record that cannot be read.

use std::fs;
use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::info::AppendOnly;
use redoubt::redis::{Connection, server};

use crate::agent_process::write_some;
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

/// Tells every server, as the operator does, and waits until the data is where it is wanted.
async fn tell(layer: &Layer, settings: [(&'static str, &'static str); 2], state: AppendOnly) {
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
    let mut layer = Layer::whole(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_whole().await;
    let before = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // Wanted, and all pods are made anew before any server was told.
    want(&layer, WITH_FILE);
    layer.restart_all().await;
    layer.wait_until_whole().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, before);
    tell(&layer, WITH_FILE, AppendOnly::Whole).await;
    kill_all(&mut layer);
    layer.wait_until_whole().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_an_append_only_file_survives_the_change_to_snapshots_and_an_old_file_is_never_loaded() {
    let settings = &[("save", "3600 1"), ("shutdown-on-sigterm", "nosave")];
    let mut layer = Layer::whole(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_whole().await;
    let before = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    want(&layer, WITH_SNAPSHOTS);
    kill_all(&mut layer);
    layer.wait_until_whole().await;
    let kept = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // `appendfsync everysec`, and a kernel that lives on: nothing is lost.
    assert_eq!(kept, before);
    tell(&layer, WITH_SNAPSHOTS, AppendOnly::Off).await;
    write_some(&layer, 600).await;
    layer.wait_until_whole().await;
    let more = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    // The files of before are still there, and an append-only file is wanted again when all are stopped.
    want(&layer, WITH_FILE);
    layer.restart_all().await;
    layer.wait_until_whole().await;
    assert_eq!(keys_of(&layer.endpoint(layer.primary().await.unwrap())).await, more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_tried_again_after_a_pause() {
    let mut layer = Layer::whole(&Options::default()).await;
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
    fs::remove_dir(&record).unwrap();
    fs::write(&record, text).unwrap();
    layer.wait_until_whole().await;
}
