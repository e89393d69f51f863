//! A server that takes no connection any more.

use redoubt::redis::Connection;

use crate::agent_process::write_some;
use crate::support::layer::{Layer, Options};

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
