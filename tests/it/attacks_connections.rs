//! Clients that take all connections of a server, and a server that takes none any more.

use std::time::Duration;

use redoubt::redis::{Connection, Endpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// With 100 for applications.
const MOST: &[(&str, &str)] = &[("maxclients", "164")];
/// Connections that are kept open, or tried again, to each data node.
const WANTED: usize = 200;
/// Between two tries of each.
const AGAIN: Duration = Duration::from_millis(50);

/// A pool that is too large: so many connections to each of these, each made again when it ends. It ends with what is returned.
fn flood(endpoints: &[Endpoint], logs_in: bool) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for endpoint in endpoints {
        let address = format!("{}:{}", endpoint.address, endpoint.port);
        let login = if logs_in { format!("AUTH app {}\r\n", endpoint.password.reveal()) } else { String::new() };
        for _ in 0..WANTED {
            let (address, login) = (address.clone(), login.clone());
            flood.spawn(async move {
                loop {
                    if let Ok(mut stream) = TcpStream::connect(&address).await
                        && stream.write_all(login.as_bytes()).await.is_ok()
                    {
                        let mut buffer = [0; 256];
                        while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }
    flood
}

async fn a_flood_outlives_a_dead_primary(logs_in: bool) {
    let layer = Layer::in_sync(&Options { settings: MOST, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 10).await;
    let endpoints: Vec<Endpoint> = layer.data_ids().into_iter().map(|id| layer.endpoint(id)).collect();
    let flood = flood(&endpoints, logs_in);
    eventually("the agents end what is above the number of applications", SOON, async || {
        let mut told = 0;
        for id in layer.data_ids() {
            let notices = layer.lineage(id).await.map(|answer| answer.notices).unwrap_or_default();
            told += usize::from(notices.iter().any(|words| words.contains("Redoubt needs itself")));
        }
        told == endpoints.len()
    })
    .await;
    let first = layer.primary().await;
    layer.kill_engine(layer.data_ids().into_iter().find(|id| first.is_none_or(|first| *id == first)).unwrap());
    let took = layer.wait_until_in_sync().await;
    println!("in sync {took:.2?} after the end of the primary, under {} connections", WANTED * endpoints.len());
    for id in layer.data_ids() {
        eventually("it is ready", SOON, async || layer.readiness(id).await.is_some_and(|text| text.contains("200 OK")))
            .await;
    }
    drop(flood);
}

/// Nothing of the layer could log in to the server that had restarted, nor to the one that was promoted, until the flood ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_too_large_keeps_no_layer_from_another_primary() {
    a_flood_outlives_a_dead_primary(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_login_keep_no_layer_from_another_primary() {
    a_flood_outlives_a_dead_primary(false).await;
}

/// A process that has no file descriptor left, as one that loses some with each fork that fails. Its agent's connection stays, and said
/// that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_takes_no_new_connection_is_restarted() {
    // It tells of each connection that it cannot take, without a pause.
    let settings: &[(&str, &str)] = &[("logfile", "/dev/null")];
    let layer = Layer::in_sync(&Options { settings, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let primary = layer.primary().await.unwrap();
    let held = layer.keys(primary).await;
    for pid in layer.engine_pids(primary) {
        let limit = ["--pid", &pid.to_string(), "--nofile=10"].map(str::to_owned);
        assert!(std::process::Command::new("prlimit").args(limit).status().unwrap().success());
    }
    assert!(Connection::open(&layer.operator_on(primary)).await.is_err(), "it takes connections");
    let took = layer.wait_until_in_sync().await;
    println!("in sync {took:.2?} after the server had no descriptor left");
    let now = layer.primary().await.unwrap();
    assert_eq!(layer.keys(now).await, held);
}
