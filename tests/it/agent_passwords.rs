//! The files of the system Secret, edited by hand and put back: agents and servers have the right passwords again by themselves, and say
//! meanwhile what they cannot do.

use std::time::Duration;

use redoubt::model::NodeId;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

const WRONG: &str = "edited-by-hand";

/// Starts a node with other text in a file of its Secret. Answers what the file had.
fn start_with(layer: &mut Layer, id: NodeId, file: &str, text: &str) -> String {
    let right = layer.secret(id, file);
    layer.write_secret(id, file, text);
    layer.start_node(id);
    right
}

/// Whether the node is not ready, and its probe and what the operator reads name the user that is refused.
async fn says(layer: &Layer, id: NodeId, user: &str) -> bool {
    let told = layer.lineage(id).await.is_some_and(|answer| answer.notices.iter().any(|words| words.contains(user)));
    let probe = layer.readiness(id).await.unwrap_or_default();
    told && probe.contains(user) && !probe.contains("200 OK")
}

async fn is_at_rest(layer: &Layer, id: NodeId) -> bool {
    let is_silent = layer.lineage(id).await.is_none_or(|answer| answer.notices.is_empty());
    is_silent && layer.readiness(id).await.is_some_and(|text| text.contains("200 OK"))
}

/// An agent that had read the wrong password kept it until its pod was deleted, and its probe said that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_started_with_a_wrong_password_says_so_and_reads_it_again() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 10).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    let sentinel = layer.sentinel_ids()[0];
    for id in [replica, sentinel] {
        layer.kill_node(id);
        let right = start_with(&mut layer, id, "agent-password", WRONG);
        let took = eventually("it says that it cannot log in", SOON, async || {
            let probe = layer.readiness(id).await.unwrap_or_default();
            probe.contains("redoubt-agent") && !probe.contains("200 OK")
        })
        .await;
        println!("{id}: says so {took:.2?} after its start");
        layer.write_secret(id, "agent-password", &right);
        let took = eventually("it is at rest", SOON, async || is_at_rest(&layer, id).await).await;
        println!("{id}: at rest {took:.2?} after the file was put back");
    }
    layer.wait_until_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_started_with_a_wrong_password_says_so_and_follows_once_the_file_is_right() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 10).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    layer.kill_node(replica);
    let right = start_with(&mut layer, replica, "replication-password", WRONG);
    eventually("it says that its primary refuses it", SOON, async || {
        says(&layer, replica, "redoubt-replication").await
    })
    .await;
    layer.write_secret(replica, "replication-password", &right);
    let took = eventually("it is at rest", SOON, async || is_at_rest(&layer, replica).await).await;
    println!("follows {took:.2?} after the file was put back");
    layer.wait_until_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_started_with_a_wrong_password_says_so_and_restarts_once_the_file_is_right() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 10).await;
    let id = layer.sentinel_ids()[0];
    layer.kill_node(id);
    let right = start_with(&mut layer, id, "sentinel-password", WRONG);
    eventually("it says that the data nodes refuse it", SOON, async || says(&layer, id, "redoubt-sentinel").await)
        .await;
    layer.write_secret(id, "sentinel-password", &right);
    let took = eventually("it is at rest", SOON, async || is_at_rest(&layer, id).await).await;
    println!("at rest {took:.2?} after the file was put back");
    layer.wait_until_in_sync().await;
}

/// All users of the server have other passwords than the rest of the layer has: nothing can log in to it and put it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_started_with_edited_users_is_restarted_once_the_file_is_right() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 10).await;
    let primary = layer.primary().await.unwrap();
    let replica = layer.data_ids().into_iter().find(|id| *id != primary).unwrap();
    for id in [replica, layer.sentinel_ids()[0]] {
        layer.kill_node(id);
        let users = layer.secret(id, "users.acl");
        let edited: Vec<String> = users
            .split(' ')
            .map(|word| if word.starts_with('#') { format!("#{}", "0".repeat(64)) } else { word.to_owned() })
            .collect();
        let right = start_with(&mut layer, id, "users.acl", &edited.join(" "));
        eventually("it says that it cannot log in", SOON, async || {
            layer.readiness(id).await.is_some_and(|text| text.contains("redoubt-agent") && !text.contains("200 OK"))
        })
        .await;
        layer.write_secret(id, "users.acl", &right);
        let took = eventually("it is at rest", SOON, async || is_at_rest(&layer, id).await).await;
        println!("{id}: at rest {took:.2?} after the file was put back");
    }
    layer.wait_until_in_sync().await;
}

/// A person edits the Secret: what runs goes on with the passwords that the servers take, whatever the files say.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_files_change_nothing_for_what_runs_and_a_failover_succeeds_with_them() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
    let files = ["agent-password", "replication-password", "sentinel-password"];
    let right: Vec<(NodeId, &str, String)> =
        ids.iter().flat_map(|id| files.map(|file| (*id, file, layer.secret(*id, file)))).collect();
    for (id, file, _) in &right {
        layer.write_secret(*id, file, WRONG);
    }
    let first = layer.primary().await.unwrap();
    let held = layer.keys(first).await;
    layer.kill_node(first);
    let took =
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != first)).await;
    println!("another primary after {took:.2?}");
    assert!(took < Duration::from_secs(15), "{took:.2?}");
    let second = layer.primary().await.unwrap();
    assert_eq!(layer.keys(second).await, held);
    for (id, file, text) in &right {
        layer.write_secret(*id, file, text);
    }
    layer.start_node(first);
    layer.wait_until_in_sync().await;
}
