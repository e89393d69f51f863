//! What the programs of docs/tasks/connect.md meet at a failover, as they stand: no call fails, and each says how long its longest one
//! took. `--nocapture` prints the figures of the page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use redoubt::act::secrets::digest;
use redoubt::dataplane::{load, session_library};
use redoubt::model::function_library::Functions;
use redoubt::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{NodeKind, OnExceed, SessionPolicy, UseKind};
use redoubt::redis::rights::Grant;
use redoubt::redis::users::{use_on_data, use_on_sentinel};
use redoubt::redis::{Connection, Secret, server};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::bound_layer::{built_example, installed, java, node, python};
use crate::support::layer::{Layer, Options};

/// For how long each program reads: a failover takes less.
const STAYS: &str = "8";
/// A JVM on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_mins(2);

/// The binding as a pod sees it, of a user whose password is `p-` and its name.
fn bind(layer: &Layer, folder: &Path, user: &str) {
    let seeds: Vec<String> =
        layer.sentinel_ids().iter().map(|id| format!("{}:{SENTINEL_PORT}", layer.nodes[id].address.0)).collect();
    let fields = [
        ("sentinels", seeds.join(",")),
        ("master-name", layer.master_name.clone()),
        ("sentinel-username", user.to_owned()),
        ("sentinel-password", format!("p-{user}")),
        ("username", user.to_owned()),
        ("password", format!("p-{user}")),
        ("port", REDIS_PORT.to_string()),
        ("prefix", "web:".to_owned()),
    ];
    fs::create_dir_all(folder).unwrap();
    for (name, value) in fields {
        fs::write(folder.join(name), value).unwrap();
    }
}

type Program = (&'static str, Box<dyn Fn() -> Command>);

/// The programs of the page, by their languages.
async fn programs() -> [Program; 5] {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_java = installed("java").await;
    let of_rust = built_example("login", "examples/clients/rust/login.rs").await;
    [
        ("Python", Box::new(move || python(&of_python, "examples/clients/python/login.py"))),
        ("Node", Box::new(move || node(&of_node, "examples/clients/node/login.mjs"))),
        ("Go", Box::new(move || Command::new(of_go.join("login")))),
        ("Rust", Box::new(move || Command::new(&of_rust))),
        ("Java", Box::new(move || java(&of_java, "examples/clients/java/Login.java"))),
    ]
}

/// Where the program that runs writes its errors.
fn errors(bindings: &Path) -> PathBuf {
    bindings.join("errors")
}

/// A program that has logged in and reads on, and what else it prints.
async fn logged_in(language: &str, mut program: Command, bindings: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    program.env("SERVICE_BINDING_ROOT", bindings).env("STAY_SECONDS", STAYS);
    // A pipe that is not read would hold up a program that writes much.
    program.stdout(Stdio::piped()).stderr(fs::File::create(errors(bindings)).unwrap());
    let mut program = program.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let first = timeout(ENDS_WITHIN, lines.next_line()).await.expect("it logs in").unwrap();
    assert!(first.is_some_and(|line| line.starts_with("ada ")), "{language}");
    (program, lines)
}

fn policy() -> SessionPolicy {
    SessionPolicy {
        store: "shop/web".to_owned(),
        generation: 1,
        prefix: "web:".to_owned(),
        idle_timeout_milliseconds: 1_800_000,
        absolute_lifetime_milliseconds: 3_600_000,
        touch_interval_milliseconds: 60_000,
        max_per_user: None,
        on_exceed: OnExceed::EvictOldest,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_page_live_through_the_death_of_a_primary() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    let bindings = std::env::temp_dir().join(format!("redoubt-gaps-{}", std::process::id()));
    bind(&layer, &bindings.join("web"), "app");
    let operator = Connection::open(&layer.operator_on(layer.primary().await.unwrap())).await.unwrap();
    load(&operator, &session_library(&[policy()])).await.unwrap();
    for (language, program) in programs().await {
        let (mut program, mut lines) = logged_in(language, program(), &bindings).await;
        layer.kill_engine(layer.primary().await.unwrap());
        let last = timeout(ENDS_WITHIN, lines.next_line()).await.expect("it ends").unwrap();
        let status = program.wait().await.unwrap();
        let words = fs::read_to_string(errors(&bindings)).unwrap();
        let Some(longest) = last.filter(|_| status.success()) else {
            panic!("{language}: a call failed: {words}");
        };
        println!("{language}: {longest}");
        layer.wait_until_in_sync().await;
    }
    fs::remove_dir_all(&bindings).unwrap();
}

/// Makes the user that a binding of this name shows, on every node.
async fn make_user(layer: &Layer, user: &str) {
    let digest = digest(&Secret::new(format!("p-{user}")));
    let of_data = use_on_data(Grant::plain(UseKind::SessionStore, "web:", &Functions::new()), &digest);
    for id in layer.nodes.keys() {
        let connection = Connection::open(&layer.operator_on(*id)).await.unwrap();
        let rules = if id.kind == NodeKind::Data { &of_data.rules } else { &use_on_sentinel(&digest).rules };
        server::acl_set_user(&connection, user, rules).await.unwrap();
    }
}

/// As at the end of a rotation's grace. A program reads its binding again, or it ends with an error: then its container is restarted, and
/// reads it. None stays without credentials.
#[tokio::test(flavor = "multi_thread")]
async fn no_program_of_the_page_stays_with_credentials_that_a_rotation_ended() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    let operator = Connection::open(&layer.operator_on(layer.primary().await.unwrap())).await.unwrap();
    load(&operator, &session_library(&[policy()])).await.unwrap();
    let bindings = std::env::temp_dir().join(format!("redoubt-rotations-{}", std::process::id()));
    let user = |rotation: usize| format!("ss.shop.web.{rotation}");
    make_user(&layer, &user(0)).await;
    bind(&layer, &bindings.join("web"), &user(0));
    for (rotation, (language, program)) in programs().await.into_iter().enumerate() {
        let (mut reading, mut lines) = logged_in(language, program(), &bindings).await;
        make_user(&layer, &user(rotation + 1)).await;
        bind(&layer, &bindings.join("web"), &user(rotation + 1));
        for id in layer.nodes.keys() {
            let connection = Connection::open(&layer.operator_on(*id)).await.unwrap();
            assert!(server::acl_delete_user(&connection, &user(rotation)).await.unwrap());
        }
        let longest = timeout(ENDS_WITHIN, lines.next_line()).await.expect("it ends").unwrap();
        let status = timeout(ENDS_WITHIN, reading.wait()).await.expect("it ends").unwrap();
        if let Some(longest) = longest.filter(|_| status.success()) {
            println!("{language} reads its binding again: {longest}");
        } else {
            println!("{language} ends: {status}");
            assert!(!status.success(), "{language}: it ends as if all were well");
            drop(logged_in(language, program(), &bindings).await);
        }
        let words = fs::read_to_string(errors(&bindings)).unwrap();
        assert!(language != "Python" || status.success(), "{words}");
    }
    fs::remove_dir_all(&bindings).unwrap();
}
