//! What fails, and what that costs: writers with unique values go on all the time, and the checker judges.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, ListParams};
use redoubt::model::{NodeId, NodeKind};
use serde_json::json;

use crate::commands::CutOff;
use crate::commands::kubectl;
use crate::history::Verdict;
use crate::stage::{ENGINES, Layer, REDIS_7, SOON, Stage, WRITERS, eventually};

/// `spec.failover.detection` where nothing is said.
const DETECTION: Duration = Duration::from_secs(5);

fn tell(what: &str, verdict: &Verdict) {
    println!(
        "{what}: {} acknowledged, {} lost, longest gap {:?}",
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.longest_gap
    );
}

/// At most what was in flight: a replica had all the rest. (Replication is asynchronous; each writer has one write under way.)
fn lost_only_what_no_replica_had(verdict: &Verdict) {
    assert!(verdict.lost.len() <= WRITERS, "{:?}", verdict.lost);
    assert!(!verdict.two_primaries, "two primaries acknowledged at once");
}

async fn moved_from(layer: &Layer, old: NodeId) -> NodeId {
    let mut primary = None;
    eventually("another is primary", SOON, async || {
        primary = layer.primary().await.filter(|node| *node != old);
        primary.is_some()
    })
    .await;
    primary.expect("the condition held")
}

/// What two cores that run three nodes and the tests are given beyond a promise; the figures are printed, and measured by `make bench`.
const LEEWAY: Duration = Duration::from_secs(2);
/// Bound of the Services' following, from the moment at which another serves. The promise is 1 s.
pub const FOLLOWED: Duration = Duration::from_secs(1).saturating_add(LEEWAY);

/// Bound of the time without an acknowledged write when a process of the primary dies, or its pod is told to stop: 1 s where an
/// agent is there to ask for a failover or to hand over, detection + 1.5 s where it died itself.
fn promised(process: Option<&str>, detection: Duration) -> Duration {
    match process {
        Some("redoubt") => detection + Duration::from_millis(1_500),
        Some(_) | None => Duration::from_secs(1),
    }
}

/// What holds as soon as another process serves.
async fn followed(layer: &Layer, served_by: NodeId, what: &str) {
    let followed = layer.services_follow(served_by, FOLLOWED).await;
    println!("{what}: the Services followed {followed:?} after another served");
}

/// How often something is repeated: `make soak` sets `REDOUBT_ROUNDS` for more.
pub fn rounds(at_least: usize) -> usize {
    std::env::var("REDOUBT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0).max(at_least)
}

/// Kills a process of the primary, or deletes its pod (`None`); the verdict on what that cost.
async fn struck(layer: &Layer, what: &str, process: Option<&str>, detection: Duration) -> Verdict {
    let verdict = layer
        .under_load(async |layer, primary| {
            let served = layer.serving().await;
            match process {
                Some(process) => layer.kill(primary, process),
                None => layer.delete_pod(primary).await,
            }
            let served_by = layer.is_served_anew(served).await;
            followed(layer, served_by, what).await;
        })
        .await;
    tell(what, &verdict);
    assert!(verdict.longest_gap < promised(process, detection) + LEEWAY, "{what}: {:?}", verdict.longest_gap);
    layer.functions_are_there().await;
    verdict
}

async fn killed_and_deleted(namespace: &str, engine: &str) {
    let (stage, layer) = Stage::with_layer_of(namespace, engine).await;
    let process = if engine.contains("valkey") { "valkey-server" } else { "redis-server" };
    for round in 0..rounds(2) {
        let what = format!("{engine}, engine killed, round {round}");
        lost_only_what_no_replica_had(&struck(&layer, &what, Some(process), DETECTION).await);
    }
    for round in 0..rounds(1) {
        let what = format!("{engine}, agent killed, round {round}");
        lost_only_what_no_replica_had(&struck(&layer, &what, Some("redoubt"), DETECTION).await);
    }
    for round in 0..rounds(1) {
        let verdict = struck(&layer, &format!("{engine}, pod deleted, round {round}"), None, DETECTION).await;
        assert_eq!(verdict.lost, Vec::<String>::new(), "a pod that is told to stop hands over without loss");
        assert!(!verdict.two_primaries);
    }
    stage.leave_of(layer, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_7_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-7", REDIS_7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_8_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-8", ENGINES[1].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_8_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-valkey-8", ENGINES[2].1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn primaries_that_die_one_right_after_the_other_roll_nobody_back() {
    let (stage, layer) = Stage::with_layer("e2e-again").await;
    for (what, process, deaths) in
        [("engines killed", Some("redis-server"), 4), ("agents killed", Some("redoubt"), 3), ("pods deleted", None, 3)]
    {
        let verdict = layer
            .under_load(async |layer, first| {
                let mut primary = first;
                for _ in 0..deaths {
                    let served = layer.serving().await;
                    match process {
                        Some(process) => layer.kill(primary, process),
                        None => layer.delete_pod(primary).await,
                    }
                    layer.is_served_anew(served).await;
                    primary = layer.primary().await.unwrap_or(primary);
                }
            })
            .await;
        tell(&format!("{deaths} {what} in a row"), &verdict);
        // Each death may cost what was in flight, and a pod that is told to stop nothing.
        let may_lose = if process.is_some() { deaths * WRITERS } else { 0 };
        assert!(verdict.lost.len() <= may_lose, "{what}: {:?}", verdict.lost);
        assert!(!verdict.two_primaries, "{what}");
    }
    stage.leave(layer).await;
}

/// Seconds that a node's server took for its data when it started last, by its own word; `None` while it is not through.
fn loaded_in(layer: &Layer, node: NodeId, since: &str) -> Option<f64> {
    let log = kubectl(&["-n", &layer.identity.namespace, "logs", &layer.pod(node), "--since-time", since]);
    let told = log.lines().filter_map(|line| line.split_once("DB loaded from ")).next_back()?.1.to_owned();
    // "append only file: 2.345 seconds", or of the base file and of each further one.
    told.split_once(": ")?.1.split_once(" seconds")?.0.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_loads_longer_than_the_detection_time_is_never_waited_for() {
    const DETECTED: Duration = Duration::from_secs(1);
    const KEYS: u32 = 2_000_000;
    let stage = Stage::set("e2e-big").await;
    let further = json!({"memory": {"limit": "1Gi"}, "failover": {"detection": "1s"}});
    let layer = stage.layer("web", further).await;
    layer.ready().await;
    layer.fill(KEYS).await;
    for process in [Some("redis-server"), Some("redoubt"), None] {
        let what = format!("{KEYS} keys, {} of the primary dies", process.unwrap_or("pod"));
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let old = layer.heals().await;
        let verdict = struck(&layer, &what, process, DETECTED).await;
        lost_only_what_no_replica_had(&verdict);
        assert!(process.is_some() || verdict.lost.is_empty(), "a pod that is told to stop hands over without loss");
        let mut loaded = None;
        eventually("the old primary says how long it loaded", SOON, async || {
            loaded = loaded_in(&layer, old, &now);
            loaded.is_some()
        })
        .await;
        let loaded = Duration::from_secs_f64(loaded.unwrap());
        println!("{what}: it loads {loaded:?}, longest gap {:?}", verdict.longest_gap);
        assert!(loaded > DETECTED, "the dataset is too small for the claim: {loaded:?}");
        assert_eq!(layer.get(&format!("filled:{}", KEYS - 1)).await, Some((KEYS - 1).to_string()));
    }
    stage.strike().await;
}

/// Writes that go on from a node that is cut off, on its side of the cut: what the old primary acknowledged there, and when.
struct Alone {
    writer: std::process::Child,
}

impl Alone {
    /// Begins, in the network of the Kubernetes node; `pod` is the primary's address there.
    async fn begin(layer: &Layer, kubernetes_node: &str, pod: &str) -> Self {
        // One line for each write that is acknowledged: its number and the time. The first refusal ends it: from then on the
        // old primary takes no more.
        let script = r#"exec 3<>"/dev/tcp/$0/6379"; printf 'AUTH app %s\r\n' "$1" >&3; read -r _ <&3; n=0
            while n=$((n+1)); printf 'SET alone:%d x\r\n' $n >&3; read -r -t 5 answer <&3; do
              [[ $answer == +OK* ]] || exit; echo "$n $EPOCHREALTIME"; sleep 0.02; done"#;
        let network = format!("--net=/run/netns/rdt-n{}", kubernetes_node.trim_start_matches("node"));
        let password = layer.binding().await["password"].clone();
        let writer = std::process::Command::new("nsenter")
            .args([&network, "timeout", "120", "bash", "-c", script, pod, &password])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        Self { writer }
    }

    /// Waits until it has ended; keys that were acknowledged, with the time since 1970.
    fn end(self) -> Vec<(String, Duration)> {
        let output = self.writer.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let parse = |line: &str| {
            let (number, time) = line.split_once(' ')?;
            Some((format!("alone:{number}"), Duration::from_secs_f64(time.parse().ok()?)))
        };
        text.lines().filter_map(parse).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_node_is_cut_off_is_replaced_and_heals_without_a_second_primary() {
    // `min-replicas-max-lag`, and two seconds: the server counts lag in whole seconds and looks at it once a second.
    const MAY_BE_LOST: Duration = Duration::from_secs(3 + 2);
    let since_1970 = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (stage, layer) = Stage::with_layer("e2e-cut").await;
    let (mut cut, mut alone) = (Duration::ZERO, None);
    let verdict = layer
        .under_load(async |layer, primary| {
            let pod = layer.pods().await.remove(&layer.pod(primary)).unwrap();
            let (node, address) = (pod.spec.unwrap().node_name.unwrap(), pod.status.unwrap().pod_ip.unwrap());
            let writes = Alone::begin(layer, &node, &address).await;
            eventually("the lonely writer writes", SOON, async || layer.get("alone:10").await.is_some()).await;
            let began = Instant::now();
            cut = since_1970();
            let network = CutOff::begin(&node);
            let served_by = moved_from(layer, primary).await;
            println!("another is primary {:?} after the cut", began.elapsed());
            // Also where the leader of the operator is on that node.
            println!("the Services followed {:?} later", layer.services_follow(served_by, FOLLOWED).await);
            network.heal();
            alone = Some(writes.end());
        })
        .await;
    tell("the primary's node cut off", &verdict);
    assert!(!verdict.two_primaries, "both sides acknowledged at once");
    assert!(verdict.longest_gap < DETECTION + Duration::from_millis(1_500) + LEEWAY, "{:?}", verdict.longest_gap);
    lost_only_what_no_replica_had(&verdict);
    let mut lost = Vec::new();
    for (key, time) in alone.unwrap() {
        if layer.get(&key).await.is_none() {
            lost.push(time.saturating_sub(cut));
        }
    }
    println!(
        "{} writes on the old primary's side were lost, the last acknowledged {:?} after the cut",
        lost.len(),
        lost.last()
    );
    assert!(lost.iter().all(|after| *after <= MAY_BE_LOST), "acknowledged alone for too long: {lost:?}");
    stage.leave(layer).await;
}

pub async fn delete_all_pods(layer: &Layer) {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = layer.api();
    let label = ListParams::default().labels(&format!("redoubt.dev/layer={}", layer.identity.name));
    pods.delete_collection(&DeleteParams::default(), &label).await.unwrap();
}

/// Waits until pods other than `old` have the key `kept` and take writes.
pub async fn serves_again(layer: &Layer, old: &BTreeSet<String>) {
    eventually("new pods have the key and take writes", Duration::from_mins(1), async || {
        layer.pod_uids().await.is_disjoint(old)
            && layer.get("kept").await.as_deref() == Some("kept")
            && layer.set("writable").await
    })
    .await;
}

/// How often the engine in a pod gave up the processor by itself.
const RESTS: &str = "for folder in /proc/[0-9]*; do case $(cat $folder/comm) in redis-server|valkey-server) \
                     while read -r name number; do [ $name != voluntary_ctxt_switches: ] || echo $number; done < $folder/status; esac; done";

/// Sentinels that connected to nodes which were away may be busy with nothing from then on: their agents end them.
async fn sentinels_rest(layer: &Layer) {
    for ordinal in 0..3 {
        let pod = layer.pod(NodeId::sentinel(ordinal));
        let rests = || -> Option<u64> {
            let script = ["-n", &layer.identity.namespace, "exec", &pod, "-c", "sentinel", "--", "sh", "-c", RESTS];
            kubectl(&script).trim().parse().ok()
        };
        let mut before = rests();
        // Between two looks a Sentinel at rest wakes up five times or more.
        let took = eventually("the Sentinel rests", Duration::from_mins(1), async || {
            let now = rests();
            let rested = now.zip(before).is_some_and(|(now, before)| now.abs_diff(before) >= 5);
            before = now;
            rested
        })
        .await;
        println!("{pod} rests after {took:?}");
    }
}

async fn all_pods_deleted(namespace: &str, engine: &str, rounds: usize) {
    let (stage, layer) = Stage::with_layer_of(namespace, engine).await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let key = format!("round-{round}");
        eventually("it takes a write", SOON, async || layer.set(&key).await).await;
        layer.heals().await;
        let old = layer.pod_uids().await;
        let began = Instant::now();
        delete_all_pods(&layer).await;
        eventually("new pods take writes", Duration::from_mins(1), async || {
            layer.pod_uids().await.is_disjoint(&old) && layer.set("writable").await
        })
        .await;
        println!("{engine}: all pods deleted, round {round}: writable after {:?}", began.elapsed());
        slowest = slowest.max(began.elapsed());
        layer.heals().await;
        for earlier in 0..=round {
            let key = format!("round-{earlier}");
            assert_eq!(layer.get(&key).await.as_deref(), Some(key.as_str()));
        }
    }
    println!("{engine}: all pods deleted {rounds} times: slowest {slowest:?}");
    sentinels_rest(&layer).await;
    stage.leave_of(layer, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_ten_times_come_back_with_the_same_data() {
    all_pods_deleted("e2e-all-redis-7", REDIS_7, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data_on_redis_8() {
    all_pods_deleted("e2e-all-redis-8", ENGINES[1].1, rounds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data_on_valkey_8() {
    all_pods_deleted("e2e-all-valkey-8", ENGINES[2].1, rounds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_and_one_held_back_come_back_with_the_same_data() {
    let (stage, layer) = Stage::with_layer("e2e-held-back").await;
    assert!(layer.set("kept").await);
    let primary = layer.heals().await;
    let held = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    // Its StatefulSet makes no pod for now: somebody scaled it to nothing, and the operator is not there to mend that.
    crate::place::scale_operator("0");
    let name = redoubt::api::names::node("web", held);
    let (stateful, namespace) = (format!("statefulset/{name}"), &stage.namespace);
    kubectl(&["-n", namespace, "scale", &stateful, "--replicas=0"]);
    let (began, old) = (Instant::now(), layer.pod_uids().await);
    delete_all_pods(&layer).await;
    serves_again(&layer, &old).await;
    println!("all pods deleted and one held back: serves after {:?}", began.elapsed());
    crate::place::scale_operator("2");
    layer.ready().await;
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    stage.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_whose_pods_are_replaced_20_times_still_know_each_other_and_nobody_else() {
    let (stage, layer) = Stage::with_layer("e2e-churn").await;
    let primary = layer.heals().await;
    for round in 0..20 {
        let sentinel = NodeId::sentinel(round % 3);
        let old = layer.pods().await[&layer.pod(sentinel)].metadata.uid.clone().unwrap();
        layer.delete_pod(sentinel).await;
        layer.is_replaced(sentinel, &old).await;
    }
    layer.ready().await;
    assert_eq!(layer.primary().await, Some(primary), "no Sentinel's death moves the primary");
    for (node, _) in layer.endpoints().await.into_iter().filter(|(node, _)| node.kind == NodeKind::Sentinel) {
        let connection = redoubt::redis::Connection::open(&layer.as_operator(node).await).await.unwrap();
        let master =
            redoubt::redis::sentinel::master(&connection, &layer.identity.master_name()).await.unwrap().unwrap();
        assert_eq!((master.other_sentinels.len(), master.replicas.len()), (2, 2), "{node}");
    }
    stage.leave(layer).await;
}
