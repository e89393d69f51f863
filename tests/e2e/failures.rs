//! What fails, and what that costs: writers with unique values go on all the time, and the checker judges.

use std::time::{Duration, Instant};

use redoubt::model::NodeId;

use crate::commands::{CutOff, kubectl};
use crate::disturbances::{
    DETECTION, Death, FOLLOWED, LEEWAY, assert_gap, delete_all_pods, killed_and_deleted, lost_only_what_no_replica_had,
    print_verdict, rounds,
};
use crate::test_namespace::{ENGINES, Layer, REDIS_7, SOON, TestNamespace, eventually};

/// What ends the primary, and how often.
fn deaths() -> [(Death, usize); 3] {
    [(Death::Engine, rounds(2)), (Death::Agent, rounds(1)), (Death::Pod, rounds(1))]
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_7_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-7", REDIS_7, deaths()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_8_loses_nothing_that_a_replica_had_when_engine_agent_or_pod_of_the_primary_die() {
    killed_and_deleted("e2e-killed-redis-8", ENGINES[1].1, deaths()).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn primaries_that_die_one_right_after_the_other_roll_no_node_back() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-again").await;
    for (death, deaths) in [(Death::Engine, 4), (Death::Agent, 3), (Death::Pod, 3)] {
        let what = format!("{deaths} times {death:?} in a row");
        let verdict = layer
            .under_load(async |layer, first| {
                let mut primary = first;
                for _ in 0..deaths {
                    let served = layer.serving().await;
                    death.inject(layer, primary).await;
                    layer.has_a_new_primary(served).await;
                    primary = layer.primary().await.unwrap_or(primary);
                }
            })
            .await;
        print_verdict(&what, &verdict);
        // A pod that is told to stop hands over.
        if death == Death::Pod {
            assert_eq!(verdict.lost, Vec::<String>::new(), "{what}");
        }
        lost_only_what_no_replica_had(&verdict);
    }
    namespace.leave(layer).await;
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
async fn a_primary_whose_node_is_cut_off_is_replaced_and_returns_without_a_second_primary() {
    // `min-replicas-max-lag`, and two seconds: the server counts lag in whole seconds and looks at it once a second.
    const MAY_BE_LOST: Duration = Duration::from_secs(3 + 2);
    let since_1970 = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (namespace, layer) = TestNamespace::with_layer("e2e-cut").await;
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
            network.reconnect();
            alone = Some(writes.end());
        })
        .await;
    print_verdict("the primary's node cut off", &verdict);
    assert!(!verdict.two_primaries, "both sides acknowledged at once");
    assert_gap("the primary's node cut off", &verdict, DETECTION + Duration::from_millis(1_500) + LEEWAY);
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
    namespace.leave(layer).await;
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

/// All pods are deleted so many times: each time new ones come with the same data.
pub async fn all_pods_deleted(namespace: &str, engine: &str, rounds: usize) {
    let (namespace, layer) = TestNamespace::with_layer_of(namespace, engine).await;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let key = format!("round-{round}");
        eventually("it takes a write", SOON, async || layer.set(&key).await).await;
        layer.wait_until_in_sync().await;
        let old = layer.pod_uids().await;
        let began = Instant::now();
        delete_all_pods(&layer).await;
        eventually("new pods take writes", Duration::from_mins(1), async || {
            layer.pod_uids().await.is_disjoint(&old) && layer.set("writable").await
        })
        .await;
        println!("{engine}: all pods deleted, round {round}: writable after {:?}", began.elapsed());
        slowest = slowest.max(began.elapsed());
        layer.wait_until_in_sync().await;
        for earlier in 0..=round {
            let key = format!("round-{earlier}");
            assert_eq!(layer.get(&key).await.as_deref(), Some(key.as_str()));
        }
    }
    println!("{engine}: all pods deleted {rounds} times: slowest {slowest:?}");
    sentinels_rest(&layer).await;
    namespace.leave_of(layer, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_again_and_again_come_back_with_the_same_data() {
    all_pods_deleted("e2e-all-redis-7", REDIS_7, 2 * rounds(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_come_back_with_the_same_data_on_redis_8() {
    all_pods_deleted("e2e-all-redis-8", ENGINES[1].1, rounds(1)).await;
}
