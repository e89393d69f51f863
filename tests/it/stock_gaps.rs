//! What the programs of docs/tasks/connect.md meet at a failover, as they stand: no call fails, and each says how long its longest one
//! took. `--nocapture` prints the figures of the page.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use redoubt::dataplane::{load, session_library};
use redoubt::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{OnExceed, SessionPolicy};
use redoubt::redis::Connection;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::bound_layer::{built_example, installed, java, node, python};
use crate::support::layer::{Layer, Options};

/// For how long each program reads: a failover takes less.
const STAYS: &str = "8";
/// A JVM on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_mins(2);

/// The binding as a pod sees it, of the layer's application user.
fn bind(layer: &Layer, folder: &Path) {
    let seeds: Vec<String> =
        layer.sentinel_ids().iter().map(|id| format!("{}:{SENTINEL_PORT}", layer.nodes[id].address.0)).collect();
    let fields = [
        ("sentinels", seeds.join(",")),
        ("master-name", layer.master_name.clone()),
        ("sentinel-username", "app".to_owned()),
        ("sentinel-password", "p-app".to_owned()),
        ("username", "app".to_owned()),
        ("password", "p-app".to_owned()),
        ("port", REDIS_PORT.to_string()),
        ("prefix", "web:".to_owned()),
    ];
    fs::create_dir_all(folder).unwrap();
    for (name, value) in fields {
        fs::write(folder.join(name), value).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_page_live_through_the_death_of_a_primary() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_java = installed("java").await;
    let of_rust = built_example("login", "examples/clients/rust/login.rs").await;
    let layer = Layer::whole(&Options::default()).await;
    layer.mark_initialised();
    let bindings = std::env::temp_dir().join(format!("redoubt-gaps-{}", std::process::id()));
    bind(&layer, &bindings.join("web"));
    let policy = SessionPolicy {
        store: "shop/web".to_owned(),
        generation: 1,
        prefix: "web:".to_owned(),
        idle_timeout_milliseconds: 1_800_000,
        absolute_lifetime_milliseconds: 3_600_000,
        touch_interval_milliseconds: 60_000,
        max_per_user: None,
        on_exceed: OnExceed::EvictOldest,
    };
    let operator = Connection::open(&layer.operator_on(layer.primary().await.unwrap())).await.unwrap();
    load(&operator, &session_library(std::slice::from_ref(&policy))).await.unwrap();
    for (language, mut program) in [
        ("Python", python(&of_python, "examples/clients/python/login.py")),
        ("Node", node(&of_node, "examples/clients/node/login.mjs")),
        ("Go", Command::new(of_go.join("login"))),
        ("Rust", Command::new(&of_rust)),
        ("Java", java(&of_java, "examples/clients/java/Login.java")),
    ] {
        program.env("SERVICE_BINDING_ROOT", &bindings).env("STAY_SECONDS", STAYS);
        let mut program = program.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let first = timeout(ENDS_WITHIN, lines.next_line()).await.expect("it logs in").unwrap();
        assert!(first.is_some_and(|line| line.starts_with("ada ")), "{language}");
        layer.kill_engine(layer.primary().await.unwrap());
        let last = timeout(ENDS_WITHIN, lines.next_line()).await.expect("it ends").unwrap();
        let output = program.wait_with_output().await.unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        let Some(longest) = last.filter(|_| output.status.success()) else {
            panic!("{language}: a call failed: {words}");
        };
        println!("{language}: {longest}");
        layer.wait_until_whole().await;
    }
    fs::remove_dir_all(&bindings).unwrap();
}
