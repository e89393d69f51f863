//! Attacks on the rule of who may become primary, each of which was seen to lose what a replica had confirmed, or to leave a layer
//! without a primary.

use std::fs;
use std::time::{Duration, Instant};

use redoubt::model::lineage::{Activity, LARGEST_NUMBER, Lineage, LineageAnswer};
use redoubt::model::node_config::AGENT_PORT;
use redoubt::model::{NodeId, NodeKind, Role};
use redoubt::redis::{Connection, server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// Writes keys and has a replica confirm them.
async fn write_confirmed(layer: &Layer, prefix: &str, count: usize) {
    let primary = Connection::open(&layer.endpoint(layer.primary().await.unwrap())).await.unwrap();
    for number in 0..count {
        primary.query::<()>(redis::cmd("SET").arg(format!("{prefix}{number}")).arg(1)).await.unwrap();
    }
    let confirmed: u64 = primary.query(redis::cmd("WAIT").arg(1).arg(3_000)).await.unwrap();
    assert!(confirmed >= 1, "no replica confirmed");
}

async fn has(layer: &Layer, id: NodeId, key: &str) -> bool {
    let Ok(connection) = Connection::open(&layer.endpoint(id)).await else { return false };
    connection.query::<Option<String>>(redis::cmd("GET").arg(key)).await.is_ok_and(|found| found.is_some())
}

fn sentinels_lose_their_volumes(layer: &Layer) {
    for id in layer.sentinel_ids() {
        layer.wipe(id);
    }
}

/// Has the layer fail over once, so that its epoch is not that of new Sentinels.
async fn fail_over(layer: &Layer) {
    let before = layer.primary().await.unwrap();
    layer.kill_engine(before);
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != before)).await;
    layer.wait_until_in_sync().await;
    let epoch = async |id| layer.lineage(id).await.and_then(|answer| answer.lineage).map_or(0, |record| record.epoch);
    eventually("all record the epoch", SOON, async || {
        let mut known = Vec::new();
        for id in layer.data_ids() {
            known.push(epoch(id).await);
        }
        known.iter().all(|epoch| *epoch > 0 && Some(epoch) == known.first())
    })
    .await;
}

fn written_record(layer: &Layer, id: NodeId) -> Lineage {
    serde_json::from_str(&fs::read_to_string(layer.data(id).join("redoubt/lineage.json")).unwrap()).unwrap()
}

fn edit_record(layer: &Layer, id: NodeId, edit: impl FnOnce(&mut Lineage)) {
    let path = layer.data(id).join("redoubt/lineage.json");
    let mut record = written_record(layer, id);
    edit(&mut record);
    fs::write(&path, serde_json::to_string(&record).unwrap()).unwrap();
}

async fn restart_without(layer: &mut Layer, away: NodeId, wipes: bool, then_all: bool) {
    layer.stop_all(|_| Duration::ZERO).await;
    if wipes {
        sentinels_lose_their_volumes(layer);
    }
    for id in layer.nodes.keys().copied().collect::<Vec<_>>() {
        if id != away || then_all {
            layer.start_node(id);
        }
    }
}

/// Waits until each Sentinel without a volume has written its first file, and asserts that it begins at this epoch or above.
async fn sentinels_begin_at(layer: &Layer, recorded: u64) {
    for id in layer.sentinel_ids() {
        let path = layer.data(id).join("sentinel.conf");
        let mut epoch = None;
        eventually(&format!("{id} has written its file"), SOON, async || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let word = text.lines().find_map(|line| line.strip_prefix("sentinel current-epoch "));
            epoch = word.and_then(|word| word.trim().parse::<u64>().ok());
            epoch.is_some()
        })
        .await;
        assert!(epoch >= Some(recorded), "{id} begins at {epoch:?}, and the records say {recorded}");
    }
}

/// A primary that a majority names, and a replica that follows it.
async fn wait_until_served(layer: &Layer) {
    eventually("two nodes serve", Duration::from_secs(100), async || {
        let Some(primary) = layer.primary().await else { return false };
        layer.replication(primary).await.is_some_and(|info| info.replicas().iter().any(|replica| replica.offset.0 > 0))
    })
    .await;
}

/// A2, A3: records and Sentinels began with epoch 0 again, so a node that was away since before was the newest of all.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_confirmed_survives_sentinels_that_lose_their_volumes_twice() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    fail_over(&layer).await;
    let primary = layer.primary().await.unwrap();
    let away = *layer.data_ids().iter().rfind(|id| **id != primary).unwrap();
    layer.terminate_node(away).await;
    let recorded = layer.data_ids().iter().map(|id| written_record(&layer, *id).epoch).max().unwrap();
    restart_without(&mut layer, away, true, false).await;
    sentinels_begin_at(&layer, recorded).await;
    wait_until_served(&layer).await;
    write_confirmed(&layer, "confirmed:", 200).await;
    restart_without(&mut layer, away, true, true).await;
    layer.wait_until_in_sync().await;
    let primary = layer.primary().await.unwrap();
    assert!(has(&layer, primary, "confirmed:199").await, "{primary} lacks what was confirmed");
}

/// A4: the chosen node started beside the serving primary, whose Sentinels made it a replica after some seconds.
#[tokio::test(flavor = "multi_thread")]
async fn the_copy_that_a_person_chose_is_not_overwritten_and_the_decision_counts_once() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_confirmed(&layer, "mine", 1).await;
    let serving = layer.primary().await.unwrap();
    let chosen = *layer.data_ids().iter().rfind(|id| **id != serving).unwrap();
    eventually("the chosen node has it", SOON, async || has(&layer, chosen, "mine0").await).await;
    layer.terminate_node(chosen).await;
    let connection = Connection::open(&layer.endpoint(serving)).await.unwrap();
    connection.query::<()>(redis::cmd("DEL").arg("mine0")).await.unwrap();
    // As after a start of its own elsewhere.
    edit_record(&layer, chosen, |record| record.term += 5);
    layer.start_node(chosen);
    eventually("it waits for a person", SOON, async || {
        layer.lineage(chosen).await.is_some_and(|answer| answer.needs_person.is_some())
    })
    .await;
    layer.edit_documents(|config| config.accept_loss = Some(chosen.ordinal));
    let began = Instant::now();
    eventually("the chosen node is primary", SOON, async || layer.primary().await == Some(chosen)).await;
    layer.wait_until_in_sync().await;
    println!("chosen node is primary of a whole layer after {:.2?}", began.elapsed());
    // Longer than Sentinels take to make a replica of who is none to them (8 s).
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        assert!(has(&layer, chosen, "mine0").await, "the chosen copy was overwritten");
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(layer.primary().await, Some(chosen));
    for id in layer.data_ids() {
        eventually("all record that the decision was carried out", SOON, async || {
            let record = layer.lineage(id).await.and_then(|answer| answer.lineage);
            record.is_some_and(|record| record.accepted == Some(chosen.ordinal))
        })
        .await;
    }
    // Another incident, with the annotation still there: the node that was chosen then has less than another.
    let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
    for id in &ids {
        layer.kill_node(*id);
    }
    edit_record(&layer, serving, |record| record.term += 5);
    for id in ids {
        layer.start_node(id);
    }
    let newest = async || layer.primary().await == Some(serving);
    eventually("the newest is primary: the decision is spent", SOON, newest).await;
    layer.wait_until_in_sync().await;
}

/// It waited on, although the page says that the primary's data replaces its own then.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_data_a_person_gave_up_follows_the_primary_and_keeps_its_files_aside() {
    let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_confirmed(&layer, "kept:", 50).await;
    let serving = layer.primary().await.unwrap();
    let alone = *layer.data_ids().iter().rfind(|id| **id != serving).unwrap();
    let operator = Connection::open(&layer.operator_on(alone)).await.unwrap();
    server::replica_of_no_one(&operator).await.unwrap();
    let application = Connection::open(&layer.endpoint(alone)).await.unwrap();
    application.query::<()>(redis::cmd("SET").arg("only-here").arg(1)).await.unwrap();
    eventually("its record says it", SOON, async || written_record(&layer, alone).role == Role::Primary).await;
    layer.kill_node(alone);
    edit_record(&layer, alone, |record| record.term += 5);
    layer.start_node(alone);
    eventually("it waits for a person", SOON, async || {
        let answer = layer.lineage(alone).await;
        answer.is_some_and(|answer| answer.needs_person.is_some_and(|why| why.contains("NamedPrimaryIsOlder")))
    })
    .await;
    layer.edit_documents(|config| config.accept_loss = Some(serving.ordinal));
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(serving), "the primary that serves goes on");
    let aside = async || layer.lineage(alone).await.map(|answer| answer.aside).unwrap_or_default();
    eventually("what it had is kept", SOON, async || !aside().await.is_empty()).await;
    let files = layer.data(alone).join("aside").join(&aside().await.remove(0).folder).join("appendonlydir");
    let has_it =
        |file: fs::DirEntry| fs::read(file.path()).is_ok_and(|text| text.windows(9).any(|words| words == b"only-here"));
    assert!(fs::read_dir(files).unwrap().flatten().any(has_it), "the kept files have the write");
    assert!(has(&layer, alone, "kept:49").await && !has(&layer, alone, "only-here").await);
}

/// A3: a failover that was refused without end, and a person's decision that was not even looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_ends_a_failover_that_is_refused() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_confirmed(&layer, "kept:", 50).await;
    let named = layer.primary().await.unwrap();
    let stale = *layer.data_ids().iter().rfind(|id| **id != named).unwrap();
    let answer = layer.lineage(stale).await.unwrap();
    layer.stop_all(|_| Duration::ZERO).await;
    // It says that it serves newer data as a replica, and no Sentinel can promote it.
    let record = answer.lineage.unwrap();
    let newer = Lineage { epoch: record.epoch + 9, clean_stop: false, ..record };
    let forging = forge(&layer, stale, Activity::Serving, newer, answer.layer_uid).await;
    for id in layer.nodes.keys().copied().filter(|id| *id != stale).collect::<Vec<_>>() {
        layer.start_node(id);
    }
    eventually("the failover is refused for long", SOON, async || {
        let answer = layer.lineage(named).await;
        answer.is_some_and(|answer| answer.needs_person.is_some_and(|why| why.contains("AskForFailover")))
    })
    .await;
    layer.edit_documents(|config| config.accept_loss = Some(named.ordinal));
    eventually("the chosen node waits for the other to be off", SOON, async || {
        layer.lineage(named).await.is_some_and(|answer| answer.accepting)
    })
    .await;
    assert!(layer.engine_pids(named).is_empty(), "it started beside a node that runs");
    forging.abort();
    eventually("the chosen node is primary", SOON, async || layer.primary().await == Some(named)).await;
    assert!(has(&layer, named, "kept:49").await);
    eventually("its epoch is above that of the other", SOON, async || {
        layer.lineage(named).await.and_then(|answer| answer.lineage).is_some_and(|record| record.epoch > 9)
    })
    .await;
}

fn signal_zone(layer: &Layer, zone: &[NodeId], frozen: bool) {
    for id in zone {
        layer.freeze_engine(*id, frozen);
        layer.freeze_agent(*id, frozen);
    }
}

/// A5: two zones of which each held a majority, one of the Sentinels and one of the data nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_with_most_data_nodes_and_few_sentinels_elects_no_replica() {
    let mut layer = Layer::in_sync(&Options { detection: 5_000, ..Options::default() }).await;
    layer.mark_initialised();
    write_confirmed(&layer, "old:", 1).await;
    let primary = layer.primary().await.unwrap();
    let first = [primary, NodeId::sentinel(0), NodeId::sentinel(1)];
    let second: Vec<NodeId> = layer.nodes.keys().copied().filter(|id| !first.contains(id)).collect();
    for id in &second {
        layer.kill_node(*id);
    }
    // What the second zone sees of a first one that it is cut off from.
    signal_zone(&layer, &first, true);
    for id in &second {
        layer.start_node(*id);
    }
    let data: Vec<NodeId> = second.iter().copied().filter(|id| id.kind == NodeKind::Data).collect();
    let said = |id: NodeId| fs::read_to_string(layer.data(id).with_file_name("log")).unwrap_or_default();
    eventually("it says for whom it waits", Duration::from_secs(80), async || {
        data.iter().all(|id| said(*id).contains("SentinelsAreSilent"))
    })
    .await;
    assert!(data.iter().all(|id| layer.engine_pids(*id).is_empty()), "a second quorum");
    signal_zone(&layer, &first, false);
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(primary));
}

/// Answers every question with this record, as an agent that is not what it says.
async fn forge(layer: &Layer, id: NodeId, activity: Activity, lineage: Lineage, uid: String) -> JoinHandle<()> {
    let answer = LineageAnswer {
        layer_uid: uid,
        ordinal: id.ordinal,
        activity,
        initialised: false,
        accepting: false,
        needs_person: None,
        aside: Vec::new(),
        loaded: false,
        unusable: None,
        audit: None,
        view: None,
        notices: Vec::new(),
        ancestry: redoubt::model::lineage::Ancestry::default(),
        lineage: Some(lineage),
    };
    let body = serde_json::to_string(&answer).unwrap();
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind((layer.nodes[&id].address.0.as_str(), AGENT_PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let text = text.clone();
            tokio::spawn(async move {
                let mut question = [0; 1024];
                let _ = client.read(&mut question).await;
                let _ = client.write_all(text.as_bytes()).await;
            });
        }
    })
}

/// A14: the promoted node's agent panicked when it added one to the largest term, and took the only primary along.
#[tokio::test(flavor = "multi_thread")]
async fn a_term_that_no_layer_reaches_is_not_believed() {
    for term in [u64::MAX, LARGEST_NUMBER] {
        let mut layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
        let primary = layer.primary().await.unwrap();
        let liar = *layer.data_ids().iter().rfind(|id| **id != primary).unwrap();
        let answer = layer.lineage(liar).await.unwrap();
        layer.terminate_node(liar).await;
        let forged = Lineage { term, synced: false, link_up: false, clean_stop: false, ..answer.lineage.unwrap() };
        let _forging = forge(&layer, liar, Activity::Loading, forged, answer.layer_uid).await;
        layer.kill_engine(primary);
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        let heir = layer.primary().await.unwrap();
        eventually("its agent records what it became", SOON, async || {
            let record = layer.lineage(heir).await.and_then(|answer| answer.lineage);
            record.is_some_and(|record| record.role == Role::Primary && record.term <= LARGEST_NUMBER)
        })
        .await;
    }
}

/// B26: Sentinels whose clock jumped, or that stood still, are in TILT for 30 s: they take the order of a failover and do nothing. Where a
/// replica has more than the record says they are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_while_the_sentinels_are_in_tilt_serves_again_from_its_file() {
    let layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    write_confirmed(&layer, "kept:", 20).await;
    let primary = layer.primary().await.unwrap();
    let sentinels = layer.sentinel_ids();
    for id in &sentinels {
        layer.freeze_engine(*id, true);
    }
    // Longer than two seconds between two of its looks at the clock put a Sentinel into TILT.
    sleep(Duration::from_millis(2_500)).await;
    for id in &sentinels {
        layer.freeze_engine(*id, false);
    }
    for endpoint in layer.sentinel_endpoints() {
        eventually("the Sentinel is in TILT", SOON, async || {
            let Ok(connection) = Connection::open(&endpoint).await else { return false };
            let info = connection.query::<String>(redis::cmd("INFO").arg("sentinel")).await;
            info.is_ok_and(|info| info.contains("sentinel_tilt:1"))
        })
        .await;
    }
    let path = layer.data(primary).join("redoubt/lineage.json");
    eventually("its record has all", SOON, async || {
        let record = serde_json::from_str::<Lineage>(&fs::read_to_string(&path).unwrap_or_default());
        let server = layer.replication(primary).await;
        server.is_some_and(|server| record.is_ok_and(|record| record.offset == server.offset()))
    })
    .await;
    layer.kill_engine(primary);
    let took = eventually("a node takes a write", Duration::from_secs(20), async || {
        for id in layer.data_ids() {
            let Ok(connection) = Connection::open(&layer.endpoint(id)).await else { continue };
            if connection.query::<()>(redis::cmd("SET").arg("after").arg(1)).await.is_ok() {
                return true;
            }
        }
        false
    })
    .await;
    println!("a write {took:.2?} after the death, in TILT");
    layer.wait_until_in_sync().await;
    let primary = layer.primary().await.unwrap();
    for key in ["kept:19", "after"] {
        assert!(has(&layer, primary, key).await, "{key} is gone");
    }
}
