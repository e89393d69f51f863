//! A message in a Sentinel's name that the primary is what is no node of the layer: the second line, for whoever gets past the users'
//! rights. The message is said with the Sentinels' own user.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use redoubt::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{Address, NodeId};
use redoubt::redis::hello::{self, Hello};
use redoubt::redis::{Connection, Endpoint, Secret, sentinel, server, users};

use crate::agent_process::write_some;
use crate::attacks_kept::SNAPSHOTS_ONLY;
use crate::support::engine_process::{Engine, Process};
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, SOON};

/// A server without users' rights that takes everybody in and has nothing.
async fn attacker() -> Process {
    let everybody = |user: &str| format!("user {user} on nopass ~* &* +@all");
    let users = [users::REPLICATION, users::SENTINEL, users::AGENT, users::APPLICATION, "default"].map(everybody);
    let lines: Vec<&str> = users.iter().map(String::as_str).collect();
    // The engine that the agents find in the search path: another one's data would not load, and nothing would be replaced.
    let engine = Engine::new("search path", "redis-server");
    Process::server(&engine, &lines).await
}

/// A message in a Sentinel's name, said with its own user on the primary: the layer's primary is another.
async fn point_sentinels_at(layer: &Layer, primary: NodeId, named: &Address, port: u16) {
    let application = Connection::open(&layer.endpoint(layer.sentinel_ids()[0])).await.unwrap();
    let known = sentinel::master(&application, &layer.master_name).await.unwrap().unwrap();
    let (run_id, sender) = known.other_sentinels.iter().next().unwrap();
    let hello = Hello {
        sender,
        sender_port: SENTINEL_PORT,
        run_id,
        master_name: &layer.master_name,
        primary: named,
        port,
        epoch: 9,
    };
    let sentinels = |endpoint: Endpoint| Endpoint {
        username: users::SENTINEL.to_owned(),
        password: Secret::new("p-s"),
        ..endpoint
    };
    let forger = Connection::open(&sentinels(layer.endpoint(primary))).await.unwrap();
    hello::publish(&forger, &hello).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_the_sentinels_are_told_of_is_no_primary_and_nothing_is_lost() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    layer.wait_until_in_sync().await;
    let attacker = attacker().await;
    let stranger = Address(attacker.address.clone());
    let began = Instant::now();
    point_sentinels_at(&layer, primary, &stranger, REDIS_PORT).await;
    eventually("a Sentinel believes it", SOON, async || {
        for id in layer.sentinel_ids() {
            let Ok(connection) = Connection::open(&layer.agent_on(id)).await else { continue };
            let named = sentinel::primary_address(&connection, &layer.master_name).await;
            if named.is_ok_and(|named| named.is_some_and(|(address, _)| address == stranger)) {
                return true;
            }
        }
        false
    })
    .await;
    println!("a Sentinel names the stranger after {:.2?}", began.elapsed());
    let mut now = None;
    eventually("a declared node is primary again, named by most", 2 * SOON, async || {
        now = layer.primary().await;
        let Some(now) = now else { return false };
        let Ok(connection) = Connection::open(&layer.endpoint(now)).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg("after").arg(1)).await.is_ok()
    })
    .await;
    println!("a declared primary takes writes again after {:.2?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(12)).await;
    // It lasts, although the stranger is still there.
    let now = layer.primary().await.unwrap();
    let kept = keys_of(&layer.endpoint(now)).await;
    assert_eq!(held.difference(&kept).count(), 0, "of {}", held.len());
    for id in layer.data_ids().into_iter().filter(|id| *id != now) {
        eventually("each other node follows it", SOON, async || {
            let link = layer.replication(id).await.and_then(|info| info.primary_link());
            link.is_some_and(|link| link.up && link.primary == layer.nodes[&now].address)
        })
        .await;
        assert!(layer.keys(id).await.unwrap() >= held.len() as u64, "{id}");
    }
}

/// The right address, and a port at which nobody listens. Agents compare addresses only.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_the_sentinels_name_with_another_port_is_named_rightly_again_and_nothing_is_lost() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    layer.wait_until_in_sync().await;
    let began = Instant::now();
    point_sentinels_at(&layer, primary, &layer.nodes[&primary].address, REDIS_PORT + 1).await;
    let named = async |id: NodeId| {
        let connection = Connection::open(&layer.endpoint(id)).await.ok()?;
        let mut asking = redis::cmd("SENTINEL");
        asking.arg("GET-MASTER-ADDR-BY-NAME").arg(&layer.master_name);
        connection.query::<(String, u16)>(&asking).await.ok()
    };
    let first = layer.sentinel_ids()[0];
    eventually("a Sentinel names another port", SOON, async || {
        named(first).await.is_some_and(|(_, port)| port == REDIS_PORT + 1)
    })
    .await;
    eventually("all name the port of a server that takes writes", 2 * SOON, async || {
        for id in layer.sentinel_ids() {
            let Some((_, REDIS_PORT)) = named(id).await else { return false };
        }
        let Some(now) = layer.primary().await else { return false };
        let Ok(connection) = Connection::open(&layer.endpoint(now)).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg("after").arg(1)).await.is_ok()
    })
    .await;
    println!("named with another port: a write after {:.2?}", began.elapsed());
    layer.wait_until_in_sync().await;
    println!("whole after {:.2?}", began.elapsed());
    for id in layer.data_ids() {
        let now = keys_of(&layer.endpoint(id)).await;
        assert_eq!(held.difference(&now).count(), 0, "{id}: of {}", held.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_made_to_follow_a_stranger_have_their_own_data_again() {
    all_made_to_follow_a_stranger(&[]).await;
}

/// What is in a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_write_snapshots_only_and_are_made_to_follow_a_stranger_have_their_own_data_again() {
    all_made_to_follow_a_stranger(SNAPSHOTS_ONLY).await;
}

async fn all_made_to_follow_a_stranger(settings: &'static [(&'static str, &'static str)]) {
    let layer = Layer::in_sync(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_in_sync().await;
    if !settings.is_empty() {
        let mut linked = BTreeSet::new();
        eventually("each has all in a snapshot, and links to that one", SOON, async || {
            for id in layer.data_ids() {
                let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
                let info = server::info(&operator).await.unwrap();
                let (data, links) = (layer.data(id), layer.data(id).join("aside/.standing"));
                let snapshot = |folder: &Path| std::fs::read(folder.join("dump.rdb")).ok();
                let is_linked = snapshot(&data).is_some() && snapshot(&data) == snapshot(&links);
                if is_linked && info.number("rdb_changes_since_last_save") == Some(0) {
                    linked.insert(id);
                }
            }
            linked.len() == layer.data_ids().len()
        })
        .await;
    }
    let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    let engines: Vec<_> = layer.data_ids().iter().map(|id| layer.engine_pids(*id)).collect();
    let attacker = attacker().await;
    let began = Instant::now();
    for id in layer.data_ids() {
        let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
        server::replica_of(&operator, &attacker.address, REDIS_PORT).await.unwrap();
    }
    let mut fewest = u64::MAX;
    eventually("all were ended", SOON, async || {
        for id in layer.data_ids() {
            fewest = fewest.min(layer.keys(id).await.unwrap_or(u64::MAX));
        }
        layer.data_ids().iter().zip(&engines).all(|(id, before)| layer.engine_pids(*id) != *before)
    })
    .await;
    layer.wait_until_in_sync().await;
    println!("all made to follow a stranger: fewest keys {fewest}, whole after {:.2?}", began.elapsed());
    for id in layer.data_ids() {
        let now = keys_of(&layer.endpoint(id)).await;
        assert_eq!(held.difference(&now).count(), 0, "{id}: of {}", held.len());
    }
}

/// The servers of two nodes were started again and followed the third, whose server followed the stranger still: they were emptied through
/// it. One of them was promoted then, and its links became links to what it had been given.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_follows_one_whose_server_follows_a_stranger() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 300).await;
    layer.wait_until_in_sync().await;
    let primary = layer.primary().await.unwrap();
    let held = keys_of(&layer.endpoint(primary)).await;
    let others: Vec<_> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
    let engines: Vec<_> = others.iter().map(|id| layer.engine_pids(*id)).collect();
    let attacker = attacker().await;
    // It sees last what happens to its server.
    layer.freeze_agent(primary, true);
    for id in layer.data_ids() {
        let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
        server::replica_of(&operator, &attacker.address, REDIS_PORT).await.unwrap();
    }
    eventually("the third server has nothing any more", SOON, async || layer.keys(primary).await == Some(0)).await;
    eventually("the others were ended", SOON, async || {
        others.iter().zip(&engines).all(|(id, before)| layer.engine_pids(*id) != *before)
    })
    .await;
    let log = |id| std::fs::read_to_string(layer.data(id).with_file_name("log")).unwrap_or_default();
    eventually("they say why they wait", SOON, async || {
        others.iter().all(|id| log(*id).contains("it follows what is no node of the layer: it is not followed"))
    })
    .await;
    assert!(others.iter().all(|id| layer.engine_pids(*id).is_empty()), "one followed it");
    layer.freeze_agent(primary, false);
    layer.wait_until_in_sync().await;
    for id in layer.data_ids() {
        let now = keys_of(&layer.endpoint(id)).await;
        assert_eq!(held.difference(&now).count(), 0, "{id}: of {}", held.len());
    }
}
