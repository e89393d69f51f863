//! Attacks on the order of the nodes' data: a record is older than the files that it speaks of, and what the files have beyond it was
//! lost with a node that counted as older, or as equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::model::lineage::Lineage;
use redoubt::redis::Connection;

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON, WRITTEN_AT_ONCE};

async fn to(layer: &Layer, id: NodeId) -> Connection {
    Connection::open(&layer.endpoint(id)).await.unwrap()
}

/// Writes keys and has so many replicas confirm them.
async fn write_confirmed(layer: &Layer, prefix: &str, count: usize, replicas: u64) {
    let primary = to(layer, layer.primary().await.unwrap()).await;
    for number in 0..count {
        primary.query::<()>(redis::cmd("SET").arg(format!("{prefix}:{number}")).arg("some value")).await.unwrap();
    }
    let confirmed: u64 = primary.query(redis::cmd("WAIT").arg(replicas).arg(5_000)).await.unwrap();
    assert!(confirmed >= replicas, "{confirmed} replicas confirmed");
}

/// Asserts that each node has so many keys.
async fn all_have(layer: &Layer, expected: u64) {
    for id in layer.data_ids() {
        let keys: u64 = to(layer, id).await.query(&redis::cmd("DBSIZE")).await.unwrap();
        assert_eq!(keys, expected, "{id}");
    }
}

fn written_record(layer: &Layer, id: NodeId) -> Lineage {
    serde_json::from_str(&fs::read_to_string(layer.data(id).join("redoubt/lineage.json")).unwrap()).unwrap()
}

/// Waits until each record says how long the node's files are: before that a replica that was sent all data has it in memory only.
async fn files_are_known(layer: &Layer) {
    let is_known = |id: &NodeId| {
        let path = layer.data(*id).join("redoubt/lineage.json");
        let record: Option<serde_json::Value> =
            fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok());
        record.is_some_and(|record| record["appendOnly"] == true && record["sample"].is_object())
    };
    eventually("each record says how long the files are", SOON, async || layer.data_ids().iter().all(is_known)).await;
}

/// The primary, and the replicas by ordinal.
async fn roles(layer: &Layer) -> (NodeId, NodeId, NodeId) {
    let mut named = None;
    eventually("the Sentinels name a primary", SOON, async || {
        named = layer.primary().await;
        named.is_some()
    })
    .await;
    let primary = named.unwrap();
    let replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
    (primary, replicas[0], replicas[1])
}

fn start(layer: &mut Layer, ids: [NodeId; 3]) {
    for id in ids {
        layer.start_node(id);
    }
}

async fn folders(layer: &Layer, id: NodeId) -> Vec<String> {
    let answer = layer.lineage(id).await.unwrap();
    answer.aside.into_iter().map(|kept| kept.folder).collect()
}

/// A5: both replicas had written the same record, the machine of the primary was gone, and the lower ordinal won: 200 of 200 lost, 8 of 8
/// times.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_confirmed_after_its_record_outlives_the_loss_of_the_primary() {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    for round in 0..3_u64 {
        files_are_known(&layer).await;
        let (primary, first, second) = roles(&layer).await;
        // An earlier death of either one: its record may be equal, and its ordinal lower.
        let (early, late) = if round == 1 { (second, first) } else { (first, second) };
        layer.kill_node(early);
        write_confirmed(&layer, &format!("round{round}"), 200, 1).await;
        layer.kill_node(late);
        layer.kill_node(primary);
        layer.wipe(primary);
        start(&mut layer, [primary, first, second]);
        layer.wait_until_in_sync().await;
        all_have(&layer, 200 * (round + 1)).await;
    }
}

/// A4: a volume took no record any more (its inodes were used up), and the file went on: the newer record of a node with less won.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_confirmed_whose_volume_takes_no_record_outlives_the_loss_of_the_primary() {
    let mut layer = Layer::in_sync(&Options { settings: WRITTEN_AT_ONCE, ..Options::default() }).await;
    layer.mark_initialised();
    files_are_known(&layer).await;
    let (primary, other, stuck) = roles(&layer).await;
    let before = written_record(&layer, stuck).offset;
    // Where the next record would be written.
    fs::create_dir(layer.data(stuck).join("redoubt/lineage.part")).unwrap();
    write_confirmed(&layer, "first", 200, 2).await;
    eventually("the other has recorded it", SOON, async || written_record(&layer, other).keys >= 200).await;
    layer.kill_node(other);
    write_confirmed(&layer, "later", 3_000, 1).await;
    eventually("the primary has recorded it", SOON, async || written_record(&layer, primary).keys >= 3_200).await;
    layer.kill_node(stuck);
    layer.kill_node(primary);
    assert!(written_record(&layer, stuck).offset <= before.max(written_record(&layer, other).offset));
    layer.wipe(primary);
    fs::remove_dir(layer.data(stuck).join("redoubt/lineage.part")).unwrap();
    start(&mut layer, [primary, other, stuck]);
    layer.wait_until_in_sync().await;
    all_have(&layer, 3_200).await;
}

/// A6: the record decided, which is of memory; the snapshot of a replica was later than that of the primary. Later the Sentinel decided, by
/// what it had seen of the replicas before they died.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_snapshot_prevails_where_all_nodes_die() {
    const SNAPSHOTS: &[(&str, &str)] = &[("appendonly", "no"), ("save", "3600 1000000")];
    let mut layer = Layer::in_sync(&Options { settings: SNAPSHOTS, ..Options::default() }).await;
    layer.mark_initialised();
    let (primary, first, second) = roles(&layer).await;
    // Of two that are alike, a Sentinel elects the one with the lower identifier.
    let is_first = run_id(&layer, first).await < run_id(&layer, second).await;
    let (elected, latest) = if is_first { (first, second) } else { (second, first) };
    write_confirmed(&layer, "first", 300, 2).await;
    for id in [primary, elected, latest] {
        save(&layer, id).await;
    }
    write_confirmed(&layer, "later", 100, 2).await;
    save(&layer, latest).await;
    write_confirmed(&layer, "memory", 10, 2).await;
    eventually("all have recorded it", SOON, async || {
        [primary, first, second].iter().all(|id| written_record(&layer, *id).keys >= 410)
    })
    .await;
    keep_views(&layer).await;
    for id in [latest, elected, primary] {
        layer.kill_node(id);
    }
    start(&mut layer, [primary, elected, latest]);
    layer.wait_until_in_sync().await;
    all_have(&layer, 400).await;
}

async fn run_id(layer: &Layer, id: NodeId) -> String {
    let agent = Connection::open(&layer.agent_on(id)).await.unwrap();
    let info: String = agent.query(redis::cmd("INFO").arg("server")).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().to_owned()
}

/// Has each Sentinel go for a while by what it sees of the replicas now, which is the same of both.
async fn keep_views(layer: &Layer) {
    for id in layer.sentinel_ids() {
        let sentinel = Connection::open(&layer.agent_on(id)).await.unwrap();
        eventually("it sees the same of both", SOON, async || {
            let asked = redis::cmd("SENTINEL").arg("REPLICAS").arg(&layer.master_name).to_owned();
            let views: Vec<BTreeMap<String, String>> = sentinel.query(&asked).await.unwrap();
            let offsets: BTreeSet<_> = views.iter().filter_map(|view| view.get("slave-repl-offset")).collect();
            views.len() == 2 && offsets.len() == 1
        })
        .await;
        sentinel.query::<()>(redis::cmd("SENTINEL").arg("DEBUG").arg("INFO-PERIOD").arg(60_000)).await.unwrap();
    }
}

/// Waits until the snapshot has all that the server has, and no other is being made.
async fn save(layer: &Layer, id: NodeId) {
    let agent = Connection::open(&layer.agent_on(id)).await.unwrap();
    eventually("a snapshot has all", SOON, async || {
        let info: String = agent.query(redis::cmd("INFO").arg("persistence")).await.unwrap();
        let says = |line: &str| info.lines().any(|it| it == line);
        let is_idle = says("rdb_bgsave_in_progress:0");
        if is_idle && says("rdb_changes_since_last_save:0") {
            return true;
        }
        if is_idle {
            // Where another child writes a file it is refused, and asked for again.
            let _ = agent.query::<redis::Value>(&redis::cmd("BGSAVE")).await;
        }
        false
    })
    .await;
}

/// Nothing is kept aside that is in the layer: a kept folder is as large as the dataset, and three of them keep a node from protecting more.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_die_under_load_keep_nothing_aside_that_is_in_the_layer() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    for round in 0..3 {
        files_are_known(&layer).await;
        let (primary, first, second) = roles(&layer).await;
        let writer = {
            let connection = to(&layer, primary).await;
            tokio::spawn(async move {
                for number in 0..u64::MAX {
                    let key = format!("load:{}", number % 5_000);
                    if connection.query::<()>(redis::cmd("SET").arg(key).arg(number)).await.is_err() {
                        return;
                    }
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(700)).await;
        match round {
            // A replica alone, under the same primary.
            0 => {
                layer.kill_node(second);
                tokio::time::sleep(Duration::from_millis(300)).await;
                layer.start_node(second);
                eventually("it is back in sync", SOON, async || {
                    layer
                        .replication(second)
                        .await
                        .is_some_and(|info| info.primary_link().is_some_and(|link| link.up && !link.syncing))
                })
                .await;
                writer.abort();
            }
            // A replica that is away while another one is promoted.
            1 => {
                layer.kill_node(second);
                tokio::time::sleep(Duration::from_secs(3)).await;
                layer.kill_engine(primary);
                eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary))
                    .await;
                layer.start_node(second);
                writer.await.unwrap();
            }
            // All at once.
            _ => {
                for id in [primary, first, second] {
                    layer.kill_node(id);
                }
                start(&mut layer, [primary, first, second]);
                writer.await.unwrap();
            }
        }
        layer.wait_until_in_sync().await;
        // A node judges within seconds what it had; then its links are of its files again.
        for id in layer.data_ids() {
            eventually("its links are of its files", SOON, async || is_judged(&layer, id)).await;
            assert_eq!(folders(&layer, id).await, Vec::<String>::new(), "{id} in round {round}");
        }
    }
}

/// Whether the links of a node are of the history that its record says.
fn is_judged(layer: &Layer, id: NodeId) -> bool {
    let links = fs::read_to_string(layer.data(id).join("aside/.standing/redoubt/lineage.json")).ok();
    let of = links.and_then(|text| serde_json::from_str::<Lineage>(&text).ok());
    of.is_some_and(|of| of.replication_id == written_record(layer, id).replication_id)
}

/// A node that was killed before its first rewrite after a full sync starts from its snapshot: it kept no append-only file until the operator
/// came, and confirmed writes in memory only.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_from_its_snapshot_has_an_append_only_file_again_without_the_operator() {
    let mut layer = Layer::in_sync(&Options::default()).await;
    layer.mark_initialised();
    write_confirmed(&layer, "first", 100, 2).await;
    let (primary, first, second) = roles(&layer).await;
    let all = [primary, first, second];
    for id in all {
        save(&layer, id).await;
    }
    eventually("all have recorded it", SOON, async || all.iter().all(|id| written_record(&layer, *id).keys >= 100))
        .await;
    for id in all {
        layer.kill_node(id);
    }
    for id in all {
        // As where the end came before the rewrite had ended.
        let path = layer.data(id).join("redoubt/lineage.json");
        let record = Lineage { append_only: Some(false), ..written_record(&layer, id) };
        fs::write(&path, serde_json::to_string(&record).unwrap()).unwrap();
    }
    start(&mut layer, all);
    layer.wait_until_in_sync().await;
    for id in all {
        eventually("it has an append-only file", SOON, async || {
            layer.replication(id).await.is_some() && written_record(&layer, id).append_only == Some(true)
        })
        .await;
    }
    all_have(&layer, 100).await;
}
