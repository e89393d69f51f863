//! What an agent tells of what its server's functions counted: numbers that only grow, whatever happens to the server.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use redis::cmd;
use redoubt::act::{self, StepResources, Writer};
use redoubt::answers;
use redoubt::dataplane::{Library, limit_library, load};
use redoubt::metrics::Metrics;
use redoubt::model::limit_policy::{Algorithm, LimitPolicy};
use redoubt::model::node_config::FUNCTIONS_FILE;
use redoubt::model::{NodeId, UseKind};
use redoubt::plan::Step;
use redoubt::redis::{Connection, server};

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};
use crate::support::limit_calls::{MINUTE, limit, limit_call, policy};

/// An agent reads the counters this often.
const EVERY: Duration = Duration::from_secs(5);

fn library(quota: u64) -> Library {
    let limits = vec![limit("minute", Algorithm::FixedWindowFromFirstHit, quota, 60 * MINUTE)];
    let policies: [LimitPolicy; 1] = [policy("api", limits)];
    limit_library(&policies)
}

/// One server that keeps nothing, and has the functions at each start.
async fn server() -> (Layer, NodeId) {
    let options = Options { data_nodes: 1, sentinels: 0, keeps_data: false, min_replicas: 0, ..Options::default() };
    let layer = Layer::start(&options);
    let id = layer.data_ids()[0];
    let sources = serde_json::to_string(&[library(3).source]).unwrap();
    fs::write(layer.data(id).with_file_name("secrets").join(FUNCTIONS_FILE), sources).unwrap();
    eventually("it serves", SOON, async || layer.readiness(id).await.is_some_and(|answer| answer.contains("200 OK")))
        .await;
    (layer, id)
}

/// Calls for `subject` this often, once the server has the function.
async fn call(layer: &Layer, id: NodeId, subject: &str, times: usize) {
    let mut left = times;
    eventually("the calls are answered", SOON, async || {
        let Ok(connection) = Connection::open(&layer.endpoint(id)).await else { return false };
        while left > 0 {
            if connection.query::<redis::Value>(&limit_call(&format!("api:{{{subject}}}"), &[])).await.is_err() {
                return false;
            }
            left -= 1;
        }
        true
    })
    .await;
}

/// Asks the agent as the operator does, until it answers these numbers.
async fn agent_counts(layer: &Layer, id: NodeId, expected: [u64; 3]) {
    let mut told = Vec::new();
    let address = layer.nodes[&id].address.0.clone();
    eventually(&format!("the agent answers {expected:?}"), SOON, async || {
        let Some(counted) = answers::counted(&address).await else { return false };
        told = counted.of(UseKind::RateLimitPolicy).to_vec();
        told.iter()
            .any(|row| (row.owner.as_str(), row.part.as_str()) == ("shop/api", "minute") && row.counts == expected)
    })
    .await;
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outlive_loads_of_the_library_and_deaths_of_the_engine() {
    let (layer, id) = server().await;
    let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
    load(&operator, &library(3)).await.unwrap();
    call(&layer, id, "ada", 5).await;
    agent_counts(&layer, id, [3, 2, 0]).await;
    // The number that a load counts from zero passes the one before it: it is another load's all the same.
    load(&operator, &library(30)).await.unwrap();
    call(&layer, id, "eve", 9).await;
    agent_counts(&layer, id, [12, 2, 0]).await;
    // The same source, loaded after a flush.
    load(&operator, &library(3)).await.unwrap();
    call(&layer, id, "bob", 4).await;
    agent_counts(&layer, id, [15, 3, 0]).await;
    let before = layer.engine_pids(id);
    layer.kill_engine(id);
    eventually("another engine runs", SOON, async || {
        let pids = layer.engine_pids(id);
        !pids.is_empty() && pids != before
    })
    .await;
    call(&layer, id, "ada", 1).await;
    agent_counts(&layer, id, [16, 3, 0]).await;
    let metrics = layer.get(id, "metrics").await.unwrap();
    let line = "redoubt_limits_allowed_total{namespace=\"shop\",policy=\"api\",limit=\"minute\"} 16";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

/// The agent looks each 5 s by itself: that reads one of these loads at most, and the last is read afterwards. On a busy machine its answer
/// may come after the load, which waits 600 ms for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_counters_read_right_before_it_loads_a_library() {
    let (layer, id) = server().await;
    let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
    load(&operator, &library(3)).await.unwrap();
    let run_id = server::info(&operator).await.unwrap().run_id().unwrap().to_owned();
    let (writer, desired) = (Writer::new(no_api(), Metrics::new().unwrap()), crate::planner::desired("1"));
    let endpoint = layer.operator_on(id);
    for round in 0..5 {
        // An agent that was asked a moment ago answers what it read then, and the operator gathers changes for longer than that.
        tokio::time::sleep(Duration::from_millis(300)).await;
        call(&layer, id, &format!("caller{round}"), 5).await;
        let library = library(3);
        let digest = library.digest.clone();
        let step = Step::LoadLibrary { node: id, run_id: run_id.clone(), library: library.name.clone(), digest };
        let resources = StepResources {
            layer: &desired.layer,
            desired: &desired,
            primary_service: &k8s_openapi::api::core::v1::Service::default(),
            services: &BTreeMap::new(),
            workloads: &BTreeMap::new(),
            documents: &BTreeMap::new(),
            live_services: &BTreeMap::new(),
            live_workloads: &BTreeMap::new(),
            libraries: &[library],
            connections: &BTreeMap::from([(id, operator.clone())]),
            endpoints: &BTreeMap::from([(id, &endpoint)]),
            addresses: &BTreeMap::new(),
        };
        let plan_outcome = act::carry_out(&writer, resources, &[step]).await;
        assert!(plan_outcome.outcomes.iter().all(|(_, outcome)| outcome.is_done()), "{:?}", plan_outcome.outcomes);
    }
    let address = layer.nodes[&id].address.0.clone();
    let mut told = 0;
    eventually("three loads of five lose no count", SOON, async || {
        let counted = answers::counted(&address).await;
        told = counted.map_or(0, |counted| {
            counted.of(UseKind::RateLimitPolicy).iter().map(|row| row.counts.iter().sum::<u64>()).sum()
        });
        told >= 15
    })
    .await;
    println!("{told} of 25 calls are counted");
}

/// A client of an API server that is not asked.
fn no_api() -> kube::Client {
    kube::Client::new(axum::Router::new(), "none")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_the_counters_by_itself_and_causes_no_error() {
    let (layer, id) = server().await;
    let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
    load(&operator, &library(3)).await.unwrap();
    call(&layer, id, "ada", 4).await;
    let line = "redoubt_limits_denied_total{namespace=\"shop\",policy=\"api\",limit=\"minute\"} 1";
    eventually("the counters are read", 2 * EVERY + SOON, async || {
        layer.get(id, "metrics").await.is_some_and(|text| text.lines().any(|found| found == line))
    })
    .await;
    let info: String = operator.query(cmd("INFO").arg("stats").arg("errorstats")).await.unwrap();
    assert!(!info.contains("errorstat_"), "{info}");
}

/// A server is asked for 30,000 rows in pages that hold it up for a millisecond each, and asking over and over does not take it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_over_and_over_takes_a_fraction_of_the_server() {
    let (layer, id) = server().await;
    let operator = Connection::open(&layer.operator_on(id)).await.unwrap();
    let policies: Vec<LimitPolicy> = (0..2_000)
        .map(|number| policy(&format!("p{number}"), vec![limit("only", Algorithm::FixedWindow, 3, MINUTE)]))
        .collect();
    load(&operator, &limit_library(&policies)).await.unwrap();
    let application = Connection::open(&layer.endpoint(id)).await.unwrap();
    let calls: Vec<redis::Cmd> = (0..2_000).map(|number| limit_call(&format!("p{number}:{{a}}"), &[])).collect();
    for reply in application.query_all(&calls).await.unwrap() {
        reply.unwrap();
    }
    let address = layer.nodes[&id].address.0.clone();
    eventually("all rows are told", SOON, async || {
        answers::counted(&address).await.is_some_and(|counted| counted.of(UseKind::RateLimitPolicy).len() == 2_000)
    })
    .await;
    let looks = async || {
        let info: String = operator.query(cmd("INFO").arg("commandstats")).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_fcall_ro:calls=")).unwrap();
        line.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let (before, began) = (looks().await, std::time::Instant::now());
    let asking = (0..8).map(|_| async {
        for _ in 0..10 {
            answers::counted(&address).await.unwrap();
        }
    });
    futures::future::join_all(asking).await;
    // Five questions each look, 20 ms apart, and one look that the agent made by itself.
    let most = 5 * (u32::try_from(began.elapsed().as_millis()).unwrap() / 20 + 3);
    let asked = looks().await - before;
    assert!(asked <= most, "{asked} questions, at most {most}");
}
