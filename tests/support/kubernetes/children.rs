//! The objects of a layer but its StatefulSets and pods: what they hold, and that the operator mends them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::kubectl;
use crate::layer::Layer;
use crate::polling::eventually_or;

/// A child object that was deleted or edited is there again, as it should be, within this.
pub const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// Every child but StatefulSets and pods, by `kind/name`: what of it somebody could have edited.
pub fn children(layer: &Layer) -> BTreeMap<String, Value> {
    let selector = format!("redoubt.dev/layer={}", layer.identity.name);
    let kinds = "services,secrets,poddisruptionbudgets";
    let all = kubectl(&["-n", &layer.identity.namespace, "get", kinds, "-l", &selector, "-o", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let content = |object: &Value| {
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let name = object["metadata"]["name"].as_str().unwrap();
        let mut spec = object["spec"].clone();
        if kind == "service" && object["metadata"]["labels"]["redoubt.dev/node"].is_null() {
            // Only nodes keep their address.
            spec.as_object_mut().unwrap().retain(|field, _| !field.starts_with("clusterIP"));
        }
        let content = json!({
            "labels": object["metadata"]["labels"], "owner": object["metadata"]["ownerReferences"],
            "spec": spec, "data": object["data"], "type": object["type"],
        });
        (format!("{kind}/{name}"), content)
    };
    all["items"].as_array().unwrap().iter().map(content).collect()
}

/// Waits until every child is as it was.
pub async fn are_mended(layer: &Layer, before: &BTreeMap<String, Value>) -> Duration {
    let mut wrong = vec![];
    let mended = eventually_or("every child is as it was", MENDED_WITHIN, async || {
        let now = children(layer);
        wrong = before
            .iter()
            .filter(|(name, content)| now.get(*name) != Some(content))
            .map(|(name, _)| name.clone())
            .collect();
        wrong.is_empty()
    })
    .await;
    mended.unwrap_or_else(|| panic!("not as they were: {wrong:?}"))
}

/// UID of an object of the layer's namespace; empty where it is not there.
pub fn uid_of(layer: &Layer, object: &str) -> String {
    kubectl(&["-n", &layer.identity.namespace, "get", object, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"])
}
