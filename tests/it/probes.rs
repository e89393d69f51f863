//! What the probes say of a server that is alive and answers with errors: nobody restarts it for that.

use std::time::Duration;

use redoubt::model::{NodeId, Role};
use redoubt::redis::{Class, Connection, server};
use tokio::task::JoinHandle;

use crate::agent_process::write_some;
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, SOON};

/// Long: no Sentinel interferes.
const DETECTION: u64 = 60_000;

/// Asks all three probes: which say yes, and the agent's word for it.
async fn verdicts(layer: &Layer, id: NodeId) -> Option<(bool, bool, bool, String)> {
    let (mut yes, mut word) = (Vec::new(), String::new());
    for which in ["started", "ready", "live"] {
        let answer = layer.probe(id, which).await?;
        yes.push(answer.contains("200 OK"));
        answer.split("\r\n\r\n").nth(1)?.lines().next()?.clone_into(&mut word);
    }
    Some((yes[0], yes[1], yes[2], word))
}

async fn says(layer: &Layer, id: NodeId, ready: bool, word: &str) {
    eventually(&format!("{id} says {word}"), SOON, async || {
        verdicts(layer, id).await == Some((true, ready, true, word.to_owned()))
    })
    .await;
}

async fn some_replica(layer: &Layer) -> NodeId {
    let primary = layer.primary().await.unwrap();
    layer.data_ids().into_iter().find(|id| *id != primary).unwrap()
}

/// Two functions that do not end, the second after it has written.
const LIBRARY: &str = "#!lua name=endless
redis.register_function{function_name = 'endless', callback = function() while true do end end, flags = {'no-writes'}}
redis.register_function('half', function(keys) redis.call('set', keys[1], 1) while true do end end)";

/// Loads them on the primary, and waits until a node has them.
async fn load_functions(layer: &Layer, id: NodeId) {
    let primary = layer.primary().await.unwrap();
    let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
    operator.query::<String>(redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY)).await.unwrap();
    eventually("the node has the functions", SOON, async || {
        let Ok(operator) = Connection::open(&layer.operator_on(id)).await else { return false };
        let listed = operator.query::<redis::Value>(redis::cmd("FUNCTION").arg("LIST")).await;
        listed.is_ok_and(|listed| format!("{listed:?}").contains("endless"))
    })
    .await;
}

/// Runs what does not end, on a server that says so soon.
async fn run_without_end(layer: &Layer, id: NodeId, words: &[&str]) -> JoinHandle<redoubt::redis::Result<()>> {
    let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
    server::config_set(&operator, "busy-reply-threshold", "20").await.unwrap();
    let endless = Connection::open_with(&layer.endpoint(id), SOON, SOON).await.unwrap();
    let mut command = redis::Cmd::new();
    command.arg(words);
    tokio::spawn(async move { endless.query::<()>(&command).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_script_does_not_end_is_busy_and_not_ready_until_the_script_is_killed() {
    let layer = Layer::in_sync(&Options { detection: DETECTION, ..Options::default() }).await;
    let replica = some_replica(&layer).await;
    let engine = layer.engine_pids(replica);
    load_functions(&layer, replica).await;
    for words in [["EVAL_RO", "while true do end", "0"], ["FCALL_RO", "endless", "0"]] {
        let running = run_without_end(&layer, replica, &words).await;
        says(&layer, replica, false, "Busy").await;
        let other = Connection::open(&layer.endpoint(replica)).await;
        let busy = match other {
            Ok(other) => other.query::<String>(redis::cmd("GET").arg("key")).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(busy.class(), Class::Busy, "{busy}");
        let began = std::time::Instant::now();
        assert!(running.await.unwrap().is_err(), "it was ended");
        println!("{} without end, killed after {:.2?}", words[0], began.elapsed());
        says(&layer, replica, true, "Serving").await;
        assert_eq!(layer.engine_pids(replica), engine);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_script_has_written_and_does_not_end_is_replaced_and_restarted() {
    let layer = Layer::in_sync(&Options { detection: DETECTION, ..Options::default() }).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let held = layer.keys(layer.primary().await.unwrap()).await.unwrap();
    load_functions(&layer, some_replica(&layer).await).await;
    let script = "redis.call('set', KEYS[1], 1) while true do end";
    for words in [["EVAL", script, "1", "half"], ["FCALL", "half", "1", "half"]] {
        let primary = layer.primary().await.unwrap();
        let engine = layer.engine_pids(primary);
        let began = std::time::Instant::now();
        let running = run_without_end(&layer, primary, &words).await;
        says(&layer, primary, false, "Busy").await;
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        println!("{} without end that has written: replaced after {:.2?}", words[0], began.elapsed());
        layer.wait_until_in_sync().await;
        assert!(running.await.unwrap().is_err());
        assert_ne!(layer.engine_pids(primary), engine, "the stuck engine is gone");
        let now = layer.primary().await.unwrap();
        assert_eq!(layer.keys(now).await, Some(held), "half of {} counts as none", words[0]);
    }
}

/// A script or transaction that fills the pod is ended by the kernel, with the whole container.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_within_a_script_or_transaction_has_all_that_was_confirmed_and_nothing_of_it() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let held = keys_of(&layer.endpoint(layer.primary().await.unwrap())).await;
    let script = "redis.call('SET', 'h:half', 1) while true do end";
    for in_a_transaction in [false, true] {
        let primary = layer.primary().await.unwrap();
        let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
        server::config_set(&operator, "busy-reply-threshold", "20").await.unwrap();
        let whole = [&["MULTI"][..], &["SET", "h:before", "1"], &["EVAL", script, "0"], &["EXEC"]];
        let words = if in_a_transaction { &whole[..] } else { &whole[2..3] };
        let commands: Vec<redis::Cmd> = words.iter().map(|words| redis::Cmd::new().arg(words).clone()).collect();
        let client = Connection::open_with(&layer.endpoint(primary), SOON, SOON).await.unwrap();
        let running = tokio::spawn(async move {
            for command in commands {
                client.query::<redis::Value>(&command).await?;
            }
            Ok::<(), redoubt::redis::Error>(())
        });
        says(&layer, primary, false, "Busy").await;
        let began = std::time::Instant::now();
        layer.kill_node(primary);
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        println!("killed within, transaction: {in_a_transaction}: another is primary after {:.2?}", began.elapsed());
        assert!(running.await.unwrap().is_err());
        layer.start_node(primary);
        layer.wait_until_in_sync().await;
        for id in layer.data_ids() {
            assert_eq!(keys_of(&layer.endpoint(id)).await, held, "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_answer_nothing_are_not_ready_and_are_restarted() {
    let layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_some(&layer, 100).await;
    let (primary, replica) = (layer.primary().await.unwrap(), some_replica(&layer).await);
    let held = layer.keys(primary).await;
    let frozen = [primary, replica, NodeId::sentinel(0)];
    let engines = frozen.map(|id| layer.engine_pids(id));
    for id in frozen {
        layer.freeze_engine(id, true);
    }
    let began = std::time::Instant::now();
    for id in frozen {
        says(&layer, id, false, "Silent").await;
    }
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
    println!("an engine that is stopped: replaced after {:.2?}", began.elapsed());
    for (id, engine) in frozen.into_iter().zip(engines) {
        eventually("the stuck process is gone", Duration::from_mins(1), async || {
            let now = layer.engine_pids(id);
            !now.is_empty() && now != engine
        })
        .await;
        println!("{id} is started anew after {:.2?}", began.elapsed());
    }
    layer.wait_until_in_sync().await;
    assert_eq!(layer.keys(layer.primary().await.unwrap()).await, held);
    for id in [primary, replica] {
        let notices = layer.lineage(id).await.unwrap().notices;
        assert!(notices.iter().any(|words| words.contains("answered nothing")), "{notices:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_cannot_save_refuses_writes_and_is_left_alone() {
    let settings = &[("save", "1 1"), ("stop-writes-on-bgsave-error", "yes")];
    let layer = Layer::in_sync(&Options { detection: DETECTION, settings, ..Options::default() }).await;
    let primary = layer.primary().await.unwrap();
    let engine = layer.engine_pids(primary);
    // A folder where the snapshot belongs: root may write anywhere, so permissions would not do.
    let snapshot = layer.data(primary).join("dump.rdb");
    let _ = std::fs::remove_file(&snapshot);
    std::fs::create_dir_all(snapshot.join("obstacle")).unwrap();
    let application = Connection::open(&layer.endpoint(primary)).await.unwrap();
    eventually("writes are refused", SOON, async || {
        let written = application.query::<()>(redis::cmd("SET").arg("key").arg(1)).await;
        written.is_err_and(|error| error.class() == Class::CannotPersist)
    })
    .await;
    let ping = application.query::<String>(&redis::cmd("PING")).await.unwrap_err();
    assert_eq!(ping.class(), Class::CannotPersist, "PING says it too");
    says(&layer, primary, true, "Serving").await;
    assert_eq!((layer.engine_pids(primary), layer.primary().await), (engine, Some(primary)));
    std::fs::remove_dir_all(&snapshot).unwrap();
    eventually("writes are taken again", SOON, async || {
        application.query::<()>(redis::cmd("SET").arg("key").arg(1)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_its_files_is_live_and_not_ready_however_long_it_takes() {
    // A thousandth of a second for each key.
    let settings = &[("key-load-delay", "1000")];
    let layer = Layer::in_sync(&Options { detection: DETECTION, settings, ..Options::default() }).await;
    write_some(&layer, 4_000).await;
    let replica = some_replica(&layer).await;
    layer.kill_engine(replica);
    says(&layer, replica, false, "Loading").await;
    let loading = Connection::open_with(&layer.endpoint(replica), SOON, SOON).await;
    if let Ok(loading) = loading
        && let Err(error) = loading.query::<Option<String>>(redis::cmd("GET").arg("key")).await
    {
        assert_eq!(error.class(), Class::Loading, "{error}");
    }
    says(&layer, replica, true, "Serving").await;
    assert_eq!(layer.replication(replica).await.unwrap().role(), Some(Role::Replica));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_is_live_and_not_ready() {
    let mut layer = Layer::in_sync(&Options { detection: DETECTION, ..Options::default() }).await;
    let replica = some_replica(&layer).await;
    says(&layer, replica, true, "Serving").await;
    let primary = layer.primary().await.unwrap();
    layer.kill_node(primary);
    says(&layer, replica, false, "Syncing").await;
    layer.start_node(primary);
    says(&layer, replica, true, "Serving").await;
    layer.wait_until_in_sync().await;
}
