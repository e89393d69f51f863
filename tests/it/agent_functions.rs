//! Functions of a layer that keeps nothing: whatever restarts, and while no operator is there, no call meets a primary without them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redoubt::dataplane::{Library, built_in_libraries, library_of, load, packed};
use redoubt::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::model::node_config::FUNCTIONS_FILE;
use redoubt::model::{NodeId, Policy, UseKind};
use redoubt::redis::{Connection, Endpoint};

use crate::support::eventually;
use crate::support::layer::{Layer, Options};

const SOON: Duration = Duration::from_mins(1);

fn limits() -> Library {
    let limit = Limit {
        name: "second".to_owned(),
        algorithm: Algorithm::Gcra { burst: 1_000_000 },
        quota: 1_000_000,
        window_milliseconds: 60_000,
        mode: LimitMode::Enforce,
    };
    let draft = LimitPolicyDraft {
        policy: "shop/api".to_owned(),
        generation: 1,
        prefix: "api:".to_owned(),
        mode: LimitMode::Enforce,
        count_denied: false,
        shards: 1,
        limits: vec![limit],
    };
    library_of(UseKind::RateLimitPolicy, &[Policy::Limits(LimitPolicy::parse(draft).unwrap())]).unwrap()
}

fn libraries() -> String {
    let sources: Vec<String> =
        built_in_libraries().into_iter().chain([limits()]).map(|library| library.source).collect();
    serde_json::to_string(&sources).unwrap()
}

fn give(layer: &Layer, text: impl AsRef<[u8]>) {
    for id in layer.data_ids() {
        fs::write(layer.data(id).with_file_name("secrets").join(FUNCTIONS_FILE), text.as_ref()).unwrap();
    }
}

/// Calls each server again and again, with a connection of its own each time. Counts the calls that a primary answered, and those
/// for which it had no function.
fn call(endpoints: Vec<Endpoint>, stop: &Arc<AtomicBool>) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (answered, missing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for endpoint in endpoints {
        let (stop, answered, missing) = (Arc::clone(stop), Arc::clone(&answered), Arc::clone(&missing));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(3)).await;
                let Ok(connection) = Connection::open(&endpoint).await else { continue };
                let mut limit = redis::cmd("FCALL");
                limit.arg("redoubt_limit").arg(1).arg("api:{ada}");
                match connection.query::<redis::Value>(&limit).await {
                    Ok(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    // A replica says that it is one; only a server that would carry it out says that there is no such function.
                    Err(error) => {
                        let is_primary = matches!(
                            connection.query::<Vec<redis::Value>>(&redis::cmd("ROLE")).await.as_deref(),
                            Ok([redis::Value::BulkString(role), ..]) if role == b"master"
                        );
                        if is_primary && format!("{error:?}").contains("not found") {
                            missing.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
    }
    (answered, missing)
}

async fn answers(what: &str, counted: &AtomicUsize) {
    let before = counted.load(Ordering::Relaxed);
    eventually(what, SOON, async || counted.load(Ordering::Relaxed) > before + 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_meets_a_primary_without_functions_whatever_restarts() {
    let mut layer = Layer::in_sync(&Options { keeps_data: false, min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    give(&layer, libraries());
    let all_engines = |layer: &Layer| layer.data_ids().into_iter().for_each(|id| layer.kill_engine(id));
    // Started before the operator left the functions: from the next start on they are there.
    all_engines(&layer);
    layer.wait_until_in_sync().await;
    let stop = Arc::new(AtomicBool::new(false));
    let endpoints = layer.data_ids().into_iter().map(|id| layer.endpoint(id)).collect();
    let (answered, missing) = call(endpoints, &stop);
    answers("a call is answered", &answered).await;
    let primary = layer.primary().await.unwrap();
    layer.kill_engine(primary);
    layer.wait_until_in_sync().await;
    answers("a call is answered after the primary died", &answered).await;
    all_engines(&layer);
    layer.wait_until_in_sync().await;
    answers("a call is answered after all engines died", &answered).await;
    for id in layer.data_ids() {
        layer.kill_node(id);
    }
    for id in layer.data_ids() {
        layer.wipe(id);
        layer.start_node(id);
    }
    layer.wait_until_in_sync().await;
    answers("a call is answered after all pods were replaced", &answered).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(missing.load(Ordering::Relaxed), 0, "of {}", answered.load(Ordering::Relaxed));
    for id in layer.data_ids() {
        // What a replica got from its primary may be there; ours, which holds functions alone, goes once it was read.
        let file = fs::read(layer.data(id).join("dump.rdb")).unwrap_or_default();
        assert!(file.get(9) != Some(&0xF5), "{id}: the snapshot is still there");
    }
}

async fn serves(layer: &Layer, id: NodeId) {
    eventually("it serves", SOON, async || {
        let Ok(connection) = Connection::open(&layer.endpoint(id)).await else { return false };
        connection.query::<redis::Value>(redis::cmd("GET").arg("a")).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_while_it_starts_has_its_functions_at_the_next_start() {
    let options = Options { data_nodes: 1, sentinels: 0, keeps_data: false, min_replicas: 0, ..Options::default() };
    let layer = Layer::start(&options);
    let id = layer.data_ids()[0];
    serves(&layer, id).await;
    give(&layer, libraries());
    for _ in 0..4 {
        let before = layer.engine_pids(id);
        layer.kill_engine(id);
        // Its agent looks at it 250 ms later.
        eventually("the next one starts", SOON, async || {
            let now = layer.engine_pids(id);
            !now.is_empty() && now != before
        })
        .await;
    }
    serves(&layer, id).await;
    let connection = Connection::open(&layer.endpoint(id)).await.unwrap();
    let mut limit = redis::cmd("FCALL");
    limit.arg("redoubt_limit").arg(1).arg("api:{ada}");
    connection.query::<redis::Value>(&limit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_an_engine_does_not_take_keep_no_server_from_starting() {
    let options = Options { data_nodes: 1, sentinels: 0, keeps_data: false, min_replicas: 0, ..Options::default() };
    let layer = Layer::start(&options);
    let id = layer.data_ids()[0];
    serves(&layer, id).await;
    for text in ["[\"#!lua name=broken\\nthis is no Lua\"]", "no JSON", "[]", "[\"\"]"] {
        give(&layer, text);
        let before = layer.engine_pids(id);
        layer.kill_engine(id);
        eventually(&format!("it starts with {text}"), SOON, async || {
            let Ok(connection) = Connection::open(&layer.endpoint(id)).await else { return false };
            layer.engine_pids(id) != before && connection.query::<String>(&redis::cmd("PING")).await.is_ok()
        })
        .await;
        // Starts in a row that come to nothing end the agent.
        eventually("its agent saw it serve", SOON, async || {
            layer.readiness(id).await.is_some_and(|answer| answer.contains("200 OK"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_ours_is_left_alone() {
    let options = Options { data_nodes: 1, sentinels: 0, keeps_data: false, min_replicas: 0, ..Options::default() };
    let layer = Layer::start(&options);
    let id = layer.data_ids()[0];
    serves(&layer, id).await;
    give(&layer, libraries());
    let file = layer.data(id).join("dump.rdb");
    // An engine's own snapshot begins with fields about itself: nothing says whose it is, so it stays as it is.
    fs::write(&file, b"REDIS0010\xFA\x09redis-ver\x067.0.15\xFF\0\0\0\0\0\0\0\0").unwrap();
    let before = layer.engine_pids(id);
    layer.kill_engine(id);
    eventually("it starts", SOON, async || {
        Connection::open(&layer.endpoint(id)).await.is_ok() && layer.engine_pids(id) != before
    })
    .await;
    assert!(fs::read(&file).unwrap().starts_with(b"REDIS0010\xFA"));
}

fn one_node() -> Options {
    Options { data_nodes: 1, sentinels: 0, keeps_data: false, min_replicas: 0, ..Options::default() }
}

async fn restart_engine(layer: &Layer, id: NodeId) {
    let before = layer.engine_pids(id);
    layer.kill_engine(id);
    eventually("the next one starts", SOON, async || {
        let now = layer.engine_pids(id);
        !now.is_empty() && now != before
    })
    .await;
    serves(layer, id).await;
}

/// Loads the libraries, as the operator does.
async fn load_all(layer: &Layer, id: NodeId) {
    let connection = Connection::open(&layer.operator_on(id)).await.unwrap();
    for library in built_in_libraries().into_iter().chain([limits()]) {
        load(&connection, &library).await.unwrap();
    }
}

async fn is_kept(layer: &Layer, id: NodeId) {
    let file = layer.data(id).join("functions.dump");
    // It is compressed, but for the names.
    let has_limits = || fs::read(&file).is_ok_and(|dump| dump.windows(14).any(|bytes| bytes == b"redoubt_limits"));
    eventually("the functions are kept", SOON, async || has_limits()).await;
}

async fn has_functions(layer: &Layer, id: NodeId) {
    let connection = Connection::open(&layer.endpoint(id)).await.unwrap();
    let mut limit = redis::cmd("FCALL");
    limit.arg("redoubt_limit").arg(1).arg("api:{ada}");
    let answer = connection.query::<redis::Value>(&limit).await;
    assert!(answer.is_ok(), "{answer:?}");
}

async fn is_ready(layer: &Layer, id: NodeId) -> bool {
    layer.readiness(id).await.is_some_and(|answer| answer.contains("200 OK"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_starts_with_the_functions_that_it_had_last() {
    let layer = Layer::start(&one_node());
    let id = layer.data_ids()[0];
    serves(&layer, id).await;
    load_all(&layer, id).await;
    is_kept(&layer, id).await;
    // The operator leaves nothing among the secrets and is away.
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, missing) = call(vec![layer.endpoint(id)], &stop);
    for _ in 0..3 {
        restart_engine(&layer, id).await;
        answers("a call is answered", &answered).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(missing.load(Ordering::Relaxed), 0, "of {}", answered.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_anything_starts_with_the_functions_of_a_peer() {
    let options = Options { data_nodes: 2, keeps_data: false, min_replicas: 0, ..Options::default() };
    let mut layer = Layer::in_sync(&options).await;
    layer.edit_documents(|config| {
        config.initialised = true;
        config.functions = ["redoubt_limits".to_owned()].into();
    });
    let first = layer.primary().await.unwrap();
    load_all(&layer, first).await;
    for id in layer.data_ids() {
        is_kept(&layer, id).await;
    }
    let uid = layer.lineage(first).await.unwrap().layer_uid;
    let address = layer.nodes[&first].address.0.clone();
    assert!(redoubt::answers::functions(&address, &uid).await.is_some());
    assert!(redoubt::answers::functions(&address, "another-layer").await.is_none());
    for id in layer.data_ids() {
        layer.kill_node(id);
    }
    // The one that the Sentinels name has lost its volume, and the operator, which has left nothing among the secrets, is away.
    layer.wipe(first);
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, missing) = call(layer.data_ids().into_iter().map(|id| layer.endpoint(id)).collect(), &stop);
    for id in layer.data_ids() {
        layer.start_node(id);
    }
    layer.wait_until_in_sync().await;
    answers("a call is answered", &answered).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(missing.load(Ordering::Relaxed), 0, "of {}", answered.load(Ordering::Relaxed));
    let log = |id: NodeId| fs::read_to_string(layer.data(id).with_file_name("log")).unwrap();
    let now = layer.primary().await.unwrap();
    assert_eq!((now, log(now).contains("another node")), (first, true), "{}", log(now));
    for id in layer.data_ids() {
        assert!(is_ready(&layer, id).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_finds_no_functions_is_not_ready_before_the_operator_loads_them() {
    let layer = Layer::start(&one_node());
    let id = layer.data_ids()[0];
    let becomes_ready = async |what: &str| eventually(what, SOON, async || is_ready(&layer, id).await).await;
    // A new layer's first functions are loaded before an application knows of it.
    layer.edit_documents(|config| config.functions = ["redoubt_limits".to_owned()].into());
    becomes_ready("a new layer is ready").await;
    restart_engine(&layer, id).await;
    becomes_ready("it is, however often it starts").await;
    // Uses without functions need none.
    layer.edit_documents(|config| {
        config.initialised = true;
        config.functions.clear();
    });
    restart_engine(&layer, id).await;
    becomes_ready("a layer without functions is ready").await;
    // A use that comes later takes nothing from those that are there.
    layer.edit_documents(|config| config.functions = ["redoubt_limits".to_owned()].into());
    for _ in 0..10 {
        assert!(is_ready(&layer, id).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    restart_engine(&layer, id).await;
    eventually("it says what it lacks", SOON, async || {
        layer.readiness(id).await.is_some_and(|answer| answer.contains("503") && answer.contains("WithoutFunctions"))
    })
    .await;
    assert!(layer.probe(id, "live").await.unwrap().contains("200 OK"));
    load_all(&layer, id).await;
    becomes_ready("it is ready with its functions").await;
    restart_engine(&layer, id).await;
    has_functions(&layer, id).await;
    becomes_ready("it is ready with those that it had last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_a_source_that_an_engine_does_not_take_come_from_the_next() {
    let layer = Layer::start(&one_node());
    let id = layer.data_ids()[0];
    serves(&layer, id).await;
    // It looks like one.
    fs::write(layer.data(id).join("functions.dump"), b"\xF5\x03abc and ten bytes").unwrap();
    // As long as the sources of some hundred policies.
    let filler =
        format!("#!lua name=filler\n{}redis.register_function('filler', function() end)", "-- more\n".repeat(60_000));
    let sources: Vec<String> =
        built_in_libraries().into_iter().chain([limits()]).map(|library| library.source).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).chain([filler.as_str()]).collect();
    let packed = packed::pack(&sources).unwrap();
    assert!(packed.len() < filler.len() / 10, "it is compressed");
    give(&layer, packed);
    restart_engine(&layer, id).await;
    has_functions(&layer, id).await;
}
