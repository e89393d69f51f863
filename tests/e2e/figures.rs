//! The figures of `docs/promises.md`, measured on the development cluster by `make bench`.
//!
//! Each is a distribution, not one lucky run. `REDOUBT_RUNS_DIVISOR` divides the number of runs for a quick look; the page says how
//! many there were.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::commands::CutOff;
use crate::commands::{cluster, kubectl};
use crate::test_namespace::{Layer, REDIS_7, SOON, TestNamespace, eventually};

const PAGE: &str = "docs/promises.md";
const BEGIN: &str = "<!-- figures: written by `make bench` -->";
const END: &str = "<!-- end of figures -->";

/// Durations of one event.
struct Figure {
    event: String,
    runs: Vec<Duration>,
    note: String,
}

impl Figure {
    fn row(&self) -> String {
        let mut sorted = self.runs.clone();
        sorted.sort();
        let seconds = |duration: Option<&Duration>| duration.map_or(0.0, Duration::as_secs_f64);
        let (median, worst) = (seconds(sorted.get(sorted.len() / 2)), seconds(sorted.last()));
        format!("| {} | {} | {median:.2} s | {worst:.2} s | {} |\n", self.event, sorted.len(), self.note)
    }
}

fn runs(full: usize) -> usize {
    let divisor = std::env::var("REDOUBT_RUNS_DIVISOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    (full / divisor).max(1)
}

async fn creation(namespace: &TestNamespace) -> Figure {
    let mut all = Vec::new();
    for run in 0..runs(5) {
        let began = Instant::now();
        let layer = namespace.layer(&format!("new{run}"), json!({})).await;
        layer.ready().await;
        eventually("it takes a write", SOON, async || layer.set("first").await).await;
        all.push(began.elapsed());
        kubectl(&["-n", &namespace.name, "delete", "datalayer", &format!("new{run}"), "--wait=true"]);
    }
    Figure { event: "applied, to Ready and writable".into(), runs: all, note: "aim < 8 s".into() }
}

/// Gap of Sentinel-aware writers around an event, and what they lost.
async fn gaps(
    layer: &Layer,
    event: &str,
    count: usize,
    aim: &str,
    followed: &mut Vec<Duration>,
    disturb: impl AsyncFn(&Layer),
) -> Figure {
    let (mut all, mut lost, mut acknowledged) = (Vec::new(), 0, 0);
    for _ in 0..count {
        let mut took = Duration::ZERO;
        let verdict = layer
            .under_load(async |layer, _| {
                let served = layer.serving().await;
                disturb(layer).await;
                let served_by = layer.has_a_new_primary(served).await;
                took = layer.services_follow(served_by, SOON).await;
            })
            .await;
        followed.push(took);
        all.push(verdict.longest_gap);
        lost += verdict.lost.len();
        acknowledged += verdict.acknowledged;
        flush(layer).await;
    }
    let note = format!("{lost} of {acknowledged} acknowledged writes lost; {aim}");
    Figure { event: event.into(), runs: all, note }
}

/// Empties the layer between runs, so that each begins alike.
async fn flush(layer: &Layer) {
    let primary = layer.wait_until_in_sync().await;
    let endpoint = layer.endpoints().await.remove(&primary).unwrap();
    let keys = crate::history::keys_of(&endpoint).await;
    let connection = redoubt::redis::Connection::open(&endpoint).await.unwrap();
    for chunk in keys.into_iter().collect::<Vec<_>>().chunks(1_000) {
        connection.query::<()>(redis::cmd("UNLINK").arg(chunk)).await.unwrap();
    }
}

async fn all_pods(layer: &Layer, count: usize) -> Figure {
    let mut all = Vec::new();
    for _ in 0..count {
        layer.wait_until_in_sync().await;
        let old = layer.pod_uids().await;
        let began = Instant::now();
        crate::disturbances::delete_all_pods(layer).await;
        eventually("new pods take writes", SOON, async || {
            layer.pod_uids().await.is_disjoint(&old) && layer.set("writable").await
        })
        .await;
        all.push(began.elapsed());
    }
    Figure { event: "all six pods deleted, to writable".into(), runs: all, note: "aim ≤ 9 s".into() }
}

/// Resident memory of the larger of the operator's processes, MiB, and its writes in `minutes` of rest.
async fn at_rest(minutes: u64) -> (f64, usize) {
    let operator = "redoubt-system:redoubt-operator";
    let count = || cluster(&["writes", operator]).lines().count();
    let before = count();
    // The figure is about the time itself: nothing is waited for.
    tokio::time::sleep(Duration::from_mins(minutes)).await;
    let writes = count() - before;
    let mut largest = 0.0_f64;
    for node in kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).split(' ') {
        for line in cluster(&["pods", node]).lines().filter(|line| line.starts_with("redoubt-system/")) {
            let [_, "redoubt", pid] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
            largest = largest.max(resident.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0);
        }
    }
    (largest, writes)
}

/// `rest`: memory in MiB, writes, and in how many minutes; `None`: not measured yet.
fn write_page(figures: &[Figure], rest: Option<(f64, usize, u64)>) {
    let mut text = format!(
        "{BEGIN}\n\nWritten by `make bench`: the development cluster (three nodes on one machine with two cores), Redis 7.0, \
         one primary, two replicas, three Sentinels, detection 5 s. A gap is the longest time without an acknowledged \
         write, as two writers saw it that ask the Sentinels where the primary is.\n\n\
         | event | runs | median | worst | note |\n|---|---|---|---|---|\n"
    );
    for figure in figures {
        text += &figure.row();
    }
    if let Some((memory, writes, minutes)) = rest {
        let _ = writeln!(
            text,
            "\nAt rest, with one layer: the larger of the operator's two processes takes {memory:.0} MiB.\n\n\
             In {minutes} idle minutes it wrote to the API server {writes} times, its lease left out."
        );
    }
    text += END;
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the page has a place for the figures");
    let (_, tail) = rest.split_once(END).expect("the place has an end");
    std::fs::write(PAGE, format!("{head}{text}{tail}")).unwrap();
    println!("{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: make bench"]
async fn figures_are_measured_and_written() {
    let namespace = TestNamespace::create("bench").await;
    // Written after each figure: whoever ends this early keeps what was measured.
    let mut figures = vec![creation(&namespace).await];
    let layer = namespace.layer("web", json!({"engine": {"image": REDIS_7}})).await;
    layer.ready().await;
    let primary = async |layer: &Layer| layer.wait_until_in_sync().await;
    let engine = async |layer: &Layer| layer.kill_engine(primary(layer).await).await;
    let mut followed = Vec::new();
    let what = "engine of the primary killed, gap";
    figures.push(gaps(&layer, what, runs(20), "aim ≤ 0.5 s", &mut followed, engine).await);
    write_page(&figures, None);
    let agent = async |layer: &Layer| layer.kill(primary(layer).await, "redoubt");
    let what = "agent of the primary killed, gap";
    figures.push(gaps(&layer, what, runs(5), "aim ≤ detection + 1.5 s", &mut followed, agent).await);
    write_page(&figures, None);
    let pod = async |layer: &Layer| layer.delete_pod(primary(layer).await).await;
    let what = "pod of the primary deleted, gap";
    figures.push(gaps(&layer, what, runs(5), "aim ≤ 0.25 s", &mut followed, pod).await);
    figures.push(Figure {
        event: "another primary serves, to the Services' following".into(),
        runs: followed,
        note: "promise ≤ 1 s".into(),
    });
    write_page(&figures, None);
    let node = async |layer: &Layer| {
        let pod = layer.pods().await.remove(&layer.pod(primary(layer).await)).unwrap();
        let node = pod.spec.unwrap().node_name.unwrap();
        let served = layer.serving().await;
        let cut = CutOff::begin(&node);
        layer.has_a_new_primary(served).await;
        cut.reconnect();
    };
    let what = "node of the primary cut off, gap";
    figures.push(gaps(&layer, what, runs(5), "aim ≤ detection + 1 s", &mut Vec::new(), node).await);
    write_page(&figures, None);
    figures.push(all_pods(&layer, runs(5)).await);
    write_page(&figures, None);
    let minutes = if std::env::var("REDOUBT_RUNS_DIVISOR").is_ok() { 2 } else { 10 };
    eventually("it is at rest", SOON, async || {
        let before = cluster(&["writes", "redoubt-system:redoubt-operator"]).lines().count();
        tokio::time::sleep(Duration::from_secs(8)).await;
        before == cluster(&["writes", "redoubt-system:redoubt-operator"]).lines().count()
    })
    .await;
    let (memory, writes) = at_rest(minutes).await;
    write_page(&figures, Some((memory, writes, minutes)));
    namespace.delete().await;
}
