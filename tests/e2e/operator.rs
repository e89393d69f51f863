//! The operator itself: what it costs at rest, what it tells, and how it hands over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::commands::CutOff;
use crate::commands::kubectl;
use crate::failures::{FOLLOWED, rounds};
use crate::objects::writes;
use crate::place::OPERATOR_NAMESPACE;
use crate::stage::{Layer, SOON, Stage, eventually};

/// Everything that was told of a layer: reason, note and how often.
fn events(layer: &Layer) -> BTreeSet<String> {
    let all = kubectl(&["-n", &layer.identity.namespace, "get", "events.events.k8s.io", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let of_layer = all["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["kind"] == "DataLayer");
    of_layer
        .map(|event| format!("{} {}: {} {}", event["action"], event["reason"], event["note"], event["series"]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_layer_costs_no_write_and_no_event_and_a_death_is_told_in_few() {
    let (stage, layer) = Stage::with_layer("e2e-idle").await;
    // What follows Ready at once: the record that the layer was initialised.
    let mut last = (0, Instant::now());
    eventually("the last write is a while ago", SOON, async || {
        let now = writes(&layer).len();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(6)
    })
    .await;
    let (watched, told) = (Instant::now(), events(&layer));
    while watched.elapsed() < Duration::from_secs(30) {
        let now = writes(&layer);
        assert_eq!(now.len(), last.0, "{:?}", now.last());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(events(&layer), told, "nothing happened");
    let (primary, served) = (layer.heals().await, layer.serving().await);
    layer.kill(primary, "redis-server");
    layer.is_served_anew(served).await;
    // Another may serve before the operator has looked.
    eventually("the death is told", SOON, async || events(&layer) != told).await;
    layer.ready().await;
    let news: Vec<String> = events(&layer).difference(&told).cloned().collect();
    println!("one engine killed: {news:#?}");
    // Each condition may turn and turn back, and none says the same twice.
    let conditions = layer.object().await.status.unwrap().conditions.len();
    assert!((1..=2 * conditions).contains(&news.len()), "{news:#?}");
    stage.leave(layer).await;
}

fn leader() -> String {
    let holder = "jsonpath={.spec.holderIdentity}";
    let identity = kubectl(&["-n", OPERATOR_NAMESPACE, "get", "lease", "redoubt-operator", "-o", holder]);
    identity.split('_').next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_told_to_stop_hands_over_in_5_s() {
    crate::place::operator().await;
    eventually("somebody leads", SOON, async || !leader().is_empty()).await;
    let old = leader();
    let began = Instant::now();
    kubectl(&["-n", OPERATOR_NAMESPACE, "delete", "pod", &old, "--wait=false"]);
    let moved = eventually("another leads", SOON, async || {
        let now = leader();
        !now.is_empty() && now != old
    })
    .await;
    println!("another operator leads {moved:?} after its predecessor was told to stop ({:?} in all)", began.elapsed());
    assert!(moved < Duration::from_secs(5), "{moved:?}");
    crate::place::operator_is_there();
}

/// Whether a replica of the operator says that it leads.
fn leads(pod: &str) -> bool {
    let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    kubectl(&["get", "--raw", &path]).lines().any(|line| line == "redoubt_leader 1")
}

/// Nobody leads the operator for as long as this lives: its Lease is held by one who does not exist.
struct NobodyLeads;

impl NobodyLeads {
    fn begin() -> Self {
        Self::lease(r#"{"spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 3600}}"#);
        Self
    }

    fn lease(patch: &str) {
        kubectl(&["-n", OPERATOR_NAMESPACE, "patch", "lease", "redoubt-operator", "--type=merge", "-p", patch]);
    }
}

impl Drop for NobodyLeads {
    fn drop(&mut self) {
        Self::lease(r#"{"spec": {"leaseDurationSeconds": 1}}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_although_nobody_leads_the_operator() {
    let (stage, layer) = Stage::with_layer("e2e-nobody-leads").await;
    let nobody = NobodyLeads::begin();
    // The leader looks at its Lease each second.
    eventually("the leader has stopped", SOON, async || {
        let operators = ["-l", "app.kubernetes.io/name=redoubt-operator", "--field-selector=status.phase=Running"];
        let named = ["-n", OPERATOR_NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
        let pods = kubectl(&[named.as_slice(), operators.as_slice()].concat());
        pods.split_whitespace().all(|pod| !leads(pod))
    })
    .await;
    for round in 0..rounds(3) {
        let (primary, served) = (layer.heals().await, layer.serving().await);
        layer.kill(primary, "redis-server");
        let served_by = layer.is_served_anew(served).await;
        let followed = layer.services_follow(served_by, FOLLOWED).await;
        println!("nobody leads, round {round}: the Services followed {followed:?} after another served");
    }
    assert_eq!(leader(), "nobody");
    drop(nobody);
    stage.leave(layer).await;
}

fn node_of(namespace: &str, pod: &str) -> String {
    kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_a_primary_that_is_cut_off_together_with_the_operators_leader() {
    let (stage, layer) = Stage::with_layer("e2e-cut-leader").await;
    let leaders_node = node_of(OPERATOR_NAMESPACE, &leader());
    for _ in 0..10 {
        let primary = layer.heals().await;
        if node_of(&stage.namespace, &layer.pod(primary)) == leaders_node {
            break;
        }
        let served = layer.serving().await;
        layer.delete_pod(primary).await;
        layer.is_served_anew(served).await;
    }
    let (primary, served) = (layer.heals().await, layer.serving().await);
    assert_eq!(
        node_of(&stage.namespace, &layer.pod(primary)),
        leaders_node,
        "ten moves, and never to the leader's node"
    );
    let (old, began) = (leader(), Instant::now());
    let network = CutOff::begin(&leaders_node);
    let served_by = layer.is_served_anew(served).await;
    let moved = began.elapsed();
    let after = layer.services_follow(served_by, FOLLOWED).await;
    println!("primary and leader cut off: another is primary after {moved:?}, the Services followed {after:?} later");
    eventually("another replica of the operator leads", SOON, async || leader() != old).await;
    network.heal();
    stage.leave(layer).await;
    crate::place::operator_is_there();
}
