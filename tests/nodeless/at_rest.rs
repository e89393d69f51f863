//! What the operator costs at rest, and what it tells.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::commands::kubectl;
use crate::place;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

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
async fn an_idle_layer_costs_no_write_and_no_event_and_a_death_is_reported_in_few() {
    let (namespace, layer) = TestNamespace::with_layer("nl-idle").await;
    let faults = place::faults(&namespace.name);
    // What follows Ready: the record that the layer was initialised, and what the audit says of its keys, within a rest of 10 s.
    let mut last = (0, Instant::now());
    eventually("the last write is a while ago", SOON, async || {
        let now = faults.writes();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(20)
    })
    .await;
    let (watched, told) = (Instant::now(), events(&layer));
    let asked = faults.requests();
    while watched.elapsed() < Duration::from_secs(30) {
        assert_eq!(faults.writes(), last.0, "a write at rest");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} requests that read in 30 s", faults.requests() - asked);
    assert_eq!(events(&layer), told, "nothing happened");
    let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
    layer.kill_engine(primary).await;
    layer.has_a_new_primary(served).await;
    // Another may serve before the operator has looked.
    eventually("the death is told", SOON, async || events(&layer) != told).await;
    layer.ready().await;
    let news: Vec<String> = events(&layer).difference(&told).cloned().collect();
    println!("one engine killed: {news:#?}");
    // Each condition may turn and turn back, and none says the same twice.
    let conditions = layer.object().await.status.unwrap().conditions.len();
    assert!((1..=2 * conditions).contains(&news.len()), "{news:#?}");
    namespace.leave(layer).await;
}
