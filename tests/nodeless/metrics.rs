//! What the operator's `/metrics` tell of layers and uses.

use kube::api::{Api, DeleteParams, PostParams};
use redoubt::api::data_layer::DataLayer;
use serde_json::json;

use crate::place;
use crate::store::Store;
use crate::test_namespace::{SOON, TestNamespace, eventually};

/// Whether a line with this metric, all of these labels and this value is exported.
fn has_metric(namespace: &str, metric: &str, labels: &[&str], value: i64) -> bool {
    let text = place::metrics(namespace).text();
    let is_it = |line: &&str| {
        let (told, labelled) = line.split_once('{').unwrap_or_default();
        told == metric && labels.iter().all(|label| labelled.contains(label)) && line.ends_with(&format!("}} {value}"))
    };
    text.lines().any(|line| is_it(&line))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_metrics_tell_what_the_status_of_each_object_says_and_forget_what_is_deleted() {
    let namespace = TestNamespace::create("nl-metrics").await;
    let space = namespace.name.as_str();
    let spec = json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone"}}});
    let store = Store::create(&namespace, "web", spec).await;
    store.ready().await;
    let store_labels = [r#"kind="SessionStore""#, r#"name="web""#, r#"namespace="nl-metrics""#];
    let ready = [&store_labels[..], &[r#"condition="Ready""#]].concat();
    // Its own watch brings the operator what it wrote a moment ago.
    eventually("the store is told to be Ready", SOON, async || has_metric(space, "redoubt_condition", &ready, 1)).await;
    assert!(has_metric(space, "redoubt_generations_unobserved", &store_labels, 0));
    assert!(has_metric(space, "redoubt_use_info", &[r#"layer="web-sessions",layer_namespace="nl-metrics""#], 1));
    let layer = [
        r#"mode="Standalone""#,
        r#"name="web-sessions""#,
        r#"primary="web-sessions-redis-0""#,
        r#"purpose="Sessions""#,
    ];
    assert!(has_metric(space, "redoubt_layer_info", &layer, 1), "{}", place::metrics(space).text());

    let layers: Api<DataLayer> = Api::namespaced(namespace.client.clone(), space);
    let small = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": "small"},
        "spec": {"mode": "Standalone", "memory": {"limit": "20Mi"}},
    });
    layers.create(&PostParams::default(), &serde_json::from_value(small).unwrap()).await.unwrap();
    let refused = [r#"condition="Accepted""#, r#"kind="DataLayer""#, r#"name="small""#];
    eventually("the refusal is told", SOON, async || has_metric(space, "redoubt_condition", &refused, 0)).await;
    layers.delete("small", &DeleteParams::default()).await.unwrap();
    eventually("what is deleted is forgotten", SOON, async || {
        !place::metrics(space).text().contains(r#"name="small""#)
    })
    .await;
}
