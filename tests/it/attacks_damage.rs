//! Files that are damaged at random places: what a whole node confirmed is there afterwards, on every node, and what only a person ends says so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::{Connection, server};

use crate::attacks_kept::SNAPSHOTS_ONLY;
use crate::support::eventually;
use crate::support::history::keys_of;
use crate::support::layer::{Layer, Options, WRITTEN_AT_ONCE};

/// Bytes that are overwritten: several commands, so no engine reads over them without noticing. Within one value no engine notices any.
const BLOCK: usize = 400;
/// Until all is in sync, or a node says that a person decides.
const WITHIN: Duration = Duration::from_mins(2);

/// Numbers from a seed (Marsaglia, "Xorshift RNGs").
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Writes keys of this round, which both replicas confirm.
async fn fill(layer: &Layer, round: usize) {
    let connection = Connection::open(&layer.endpoint(layer.primary().await.unwrap())).await.unwrap();
    let commands: Vec<_> = (0..300)
        .map(|number| redis::cmd("SET").arg(format!("k{round}-{number}")).arg("x".repeat(20)).clone())
        .collect();
    for reply in connection.query_all(&commands).await.unwrap() {
        reply.unwrap();
    }
    assert_eq!(connection.query::<usize>(redis::cmd("WAIT").arg(2).arg(5_000)).await.unwrap(), 2);
}

/// What an engine loads, but files without content.
fn files(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("appendonlydir")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.chain([data.join("dump.rdb")]).collect();
    files.retain(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0));
    files.sort();
    files
}

/// Whether the node's record has the lengths of its append-only files as they are: what a sudden end takes of a younger end is no damage.
fn is_recorded(data: &Path) -> bool {
    let record = fs::read_to_string(data.join("redoubt/lineage.json")).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
    files(data).iter().filter(|path| path.extension().is_some_and(|end| end == "aof")).all(|path| {
        let recorded = &record["appendFiles"][path.file_name().unwrap().to_str().unwrap()];
        recorded.as_u64() == fs::metadata(path).ok().map(|found| found.len())
    })
}

/// Damages a file of the node, and says how.
fn damage(random: &mut Random, data: &Path) -> String {
    let files = files(data);
    let path = &files[random.below(files.len())];
    let whole = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_manifest = name.ends_with(".manifest");
    let length = whole.len().min(BLOCK).div_ceil(if whole.len() > 2 * BLOCK { 1 } else { 2 });
    // The head, the tail, or anywhere.
    let place = match random.below(3) {
        0 => 0,
        1 => whole.len() - length,
        _ => random.below(whole.len() - length + 1),
    };
    let (what, text) = match random.below(5) {
        0 => {
            let mut text = whole.clone();
            text[place..place + length].fill(0);
            ("zeros", text)
        }
        1 => {
            let mut text = whole.clone();
            text[place..place + length].fill_with(|| u8::try_from(random.below(256)).unwrap());
            ("garbage", text)
        }
        2 => ("cut off", whole[..place].to_vec()),
        3 => ("cut out", [&whole[..place], &whole[place + length..]].concat()),
        // What a line of a manifest names is not loaded.
        _ if is_manifest => {
            let text = String::from_utf8(whole.clone()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let lost = random.below(lines.len());
            let rest =
                lines.iter().enumerate().filter(|(number, _)| *number != lost).map(|(_, line)| format!("{line}\n"));
            ("a line lost", rest.collect::<String>().into_bytes())
        }
        _ => ("emptied", Vec::new()),
    };
    fs::write(path, &text).unwrap();
    format!("{name} of {} bytes, {length} bytes from {place}: {what}, now {} bytes", whole.len(), text.len())
}

/// Waits until all is in sync, by a person's decision for that node where one is waited for.
async fn recover(layer: &Layer, whole: NodeId) {
    let says = async || {
        let mut all = Vec::new();
        for id in layer.data_ids() {
            let answer = layer.lineage(id).await;
            all.extend(answer.and_then(|answer| answer.needs_person.or(answer.unusable)).map(|why| (id, why)));
        }
        all
    };
    let mut told = Vec::new();
    let took = eventually("in sync, or a node says that a person decides", WITHIN, async || {
        told = says().await;
        !told.is_empty() || layer.check_in_sync().await.is_ok()
    })
    .await;
    println!("  {took:.2?}: {told:?}");
    if let Err(_waits) = tokio::time::timeout(Duration::from_secs(30), layer.until_in_sync()).await {
        assert!(!says().await.is_empty(), "it waits, and no node says so");
        layer.edit_documents(|config| config.accept_loss = Some(whole.ordinal));
        layer.wait_until_in_sync().await;
        layer.edit_documents(|config| config.accept_loss = None);
        println!("  a person chose {whole}");
    }
}

async fn whatever_is_damaged_costs_nothing_that_a_whole_node_has(seed: u64, options: &Options) {
    let mut random = Random(seed);
    let mut layer = Layer::in_sync(options).await;
    layer.mark_initialised();
    for round in 0..4 {
        fill(&layer, round).await;
        let ids = layer.data_ids();
        let primary = layer.primary().await.unwrap();
        if random.below(2) == 0 {
            // New files, with all of it in the base.
            for id in &ids {
                let operator = Connection::open(&layer.agent_on(*id)).await.unwrap();
                let _ = server::config_set(&operator, "auto-aof-rewrite-percentage", "1").await;
            }
        }
        let held: BTreeSet<String> = keys_of(&layer.endpoint(primary)).await;
        eventually("the records have the files' lengths", Duration::from_secs(30), async || {
            ids.iter().all(|id| is_recorded(&layer.data(*id)))
        })
        .await;
        let is_orderly = random.below(2) == 0 || !options.settings.contains(&("appendfsync", "always"));
        if is_orderly {
            layer.stop_all(|_| Duration::ZERO).await;
        } else {
            for id in layer.nodes.keys().copied().collect::<Vec<_>>() {
                layer.kill_node(id);
            }
        }
        // One or two of three; the primary among them in two of three rounds.
        let whole = ids[random.below(ids.len())];
        let damaged: Vec<NodeId> = ids.iter().copied().filter(|id| *id != whole).take(1 + random.below(2)).collect();
        println!("seed {seed}, round {round}: orderly {is_orderly}, primary {primary}, whole {whole}");
        for id in &damaged {
            println!("  {id}: {}", damage(&mut random, &layer.data(*id)));
        }
        let mut order: Vec<NodeId> = layer.nodes.keys().copied().collect();
        while !order.is_empty() {
            layer.start_node(order.remove(random.below(order.len())));
        }
        recover(&layer, whole).await;
        for id in &ids {
            let lost: Vec<String> = held.difference(&keys_of(&layer.endpoint(*id)).await).cloned().collect();
            assert!(
                lost.is_empty(),
                "seed {seed}, round {round}: {id} lost {} keys, as {:?}",
                lost.len(),
                lost.first()
            );
        }
        // Three folders at most are kept.
        let mut folders = BTreeSet::new();
        for id in &ids {
            folders.extend(layer.lineage(*id).await.unwrap().aside.into_iter().map(|kept| kept.folder));
        }
        layer.edit_documents(|config| config.drop_aside.clone_from(&folders));
        eventually("they are dropped", Duration::from_secs(30), async || {
            for id in &ids {
                if layer.lineage(*id).await.is_none_or(|answer| !answer.aside.is_empty()) {
                    return false;
                }
            }
            true
        })
        .await;
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("REDOUBT_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![0x9e37_79b9, 0x7f4a_7c15],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_only_files_that_are_damaged_anywhere_cost_nothing_that_a_whole_node_has() {
    for seed in seeds() {
        let options = Options { settings: WRITTEN_AT_ONCE, ..Options::default() };
        whatever_is_damaged_costs_nothing_that_a_whole_node_has(seed, &options).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_are_damaged_anywhere_cost_nothing_that_a_whole_node_has() {
    let options = Options { settings: SNAPSHOTS_ONLY, ..Options::default() };
    whatever_is_damaged_costs_nothing_that_a_whole_node_has(seeds()[0], &options).await;
}
