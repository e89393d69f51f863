//! Claims about caches: what a process in another pod is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use redis::aio::MultiplexedConnection;
use redoubt::api::cache_namespace::CacheNamespace;
use serde_json::json;

use crate::cache_copies::{ASKS_EVERY, Copies, KEY};
use crate::commands::{CutOff, cluster};
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace, engine};

/// How long it is cut off.
const AWAY: Duration = Duration::from_secs(5);

/// Where the packages of Python are; fetched if they are not there.
fn python() -> PathBuf {
    let text = crate::commands::run("tests/clients/install", &["python"]);
    PathBuf::from(text.lines().find_map(|line| line.strip_prefix("python=")).expect("it was installed"))
}

/// The binding as files, with the addresses of the Sentinels' Services: the machine that runs the program asks no DNS of the cluster.
async fn files_of(namespace: &TestNamespace, binding: &BTreeMap<String, String>) -> PathBuf {
    let services: Api<Service> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let mut seeds = Vec::new();
    for seed in binding["sentinels"].split(',') {
        let (host, port) = seed.split_once(':').unwrap();
        let address = services.get(host.split_once('.').unwrap().0).await.unwrap().spec.unwrap().cluster_ip.unwrap();
        // The Service of all Sentinels may be headless.
        if address != "None" {
            seeds.push(format!("{address}:{port}"));
        }
    }
    let root = std::env::temp_dir().join(format!("redoubt-{}-{}", namespace.name, std::process::id()));
    let folder = root.join("cache");
    std::fs::create_dir_all(&folder).unwrap();
    for (field, text) in binding {
        std::fs::write(folder.join(field), if field == "sentinels" { seeds.join(",") } else { text.clone() }).unwrap();
    }
    root
}

/// The entry is invalidated and has another value, in the source too.
async fn change(primary: &mut MultiplexedConnection, copies: &mut Copies, value: &str) {
    copies.ask(&format!("source {value}")).await;
    run::<i64>(primary, call("redoubt_cache_invalidate", KEY, &[])).await.unwrap();
    run::<i64>(primary, call("redoubt_cache_set", KEY, &["", value])).await.unwrap();
}

/// The node of a pod of the layer, and a process of that pod.
struct Elsewhere {
    node: String,
    process: String,
}

/// A replica's pod on another node than the primary's.
async fn elsewhere(cache: &Store<CacheNamespace>) -> Elsewhere {
    let layer = cache.layer().await;
    let primary = layer.object().await.status.unwrap().primary.unwrap();
    let pods = layer.pods().await;
    let node_of = |pod: &str| pods[pod].spec.as_ref().unwrap().node_name.clone().unwrap();
    let of_primary = node_of(&format!("{primary}-0"));
    let other =
        pods.keys().find(|pod| pod.contains("-redis-") && node_of(pod) != of_primary).expect("nodes are spread");
    let node = node_of(other);
    let processes = cluster(&["pods", &node]);
    let its_own = format!("{}/{other} ", layer.identity.namespace);
    let line = processes.lines().find(|line| line.starts_with(&its_own)).expect("the pod has a process");
    Elsewhere { process: line.rsplit(' ').next().unwrap().to_owned(), node }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_in_another_pod_that_is_cut_off_for_five_seconds_notices_and_recovers() {
    let namespace = TestNamespace::create("e2e-cache-cut").await;
    let spec = json!({"ttl": "1h", "layer": {"dedicated": {"mode": "Sentinel", "cpu": "20m",
        "engine": {"image": engine(), "pullPolicy": "Never"}}}});
    let cache: Store<CacheNamespace> = Store::make(&namespace, "web", spec).await;
    cache.ready().await;
    let mut primary = cache.connected().await;
    let Elsewhere { node, process } = elsewhere(&cache).await;
    let root = files_of(&namespace, &cache.binding().await.unwrap()).await;
    let mut program = tokio::process::Command::new("nsenter");
    program.args(["--net", "--target", &process]).arg(python().join("venv/bin/python"));
    program.args(["tests/clients/python/cache_copies.py"]).env("SERVICE_BINDING_ROOT", &root).kill_on_drop(true);
    let mut copies = Copies::start(program);
    change(&mut primary, &mut copies, "one").await;
    eventually("it follows the change", SOON, async || copies.read_until_copied().await == "one").await;
    change(&mut primary, &mut copies, "two").await;
    eventually("it is told", AWAY, async || !copies.is_copied().await).await;
    assert_eq!(copies.read_until_copied().await, "two");

    // Every packet is lost, and no connection ends: what the primary says is sent again, or too late.
    let network = CutOff::begin(&node);
    let began = Instant::now();
    change(&mut primary, &mut copies, "three").await;
    assert!(copies.is_copied().await, "it was not told: the precondition does not hold");
    tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
    network.reconnect();
    eventually("it notices", ASKS_EVERY + AWAY, async || !copies.is_copied().await || copies.read().await == "three")
        .await;
    println!("noticed {:.1?} after the cut", began.elapsed());
    eventually("it recovers", SOON, async || copies.read_until_copied().await == "three").await;

    change(&mut primary, &mut copies, "four").await;
    eventually("it is told again", AWAY, async || !copies.is_copied().await).await;
    assert_eq!(copies.read_until_copied().await, "four");
    std::fs::remove_dir_all(root).unwrap();
    namespace.delete().await;
}
