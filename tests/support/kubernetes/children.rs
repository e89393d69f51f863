//! The objects of a layer but its StatefulSets and pods: what they hold, and that the operator mends them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::commands::kubectl;
use crate::layer::Layer;
use crate::polling::eventually_or;

/// A child object that was deleted or edited is there again, as it should be, within this.
pub const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// Objects of the kind of a child (`kind/name`) in the layer's namespace, and its name. By the API and not by `kubectl`: it is asked so
/// often that the program would take more of the processors than what is waited for.
pub fn api_of<'a>(layer: &Layer, child: &'a str) -> (Api<DynamicObject>, &'a str) {
    let (kind, name) = child.split_once('/').unwrap();
    let resource = match kind {
        "service" => ApiResource::erase::<Service>(&()),
        "secret" => ApiResource::erase::<Secret>(&()),
        _ => ApiResource::erase::<PodDisruptionBudget>(&()),
    };
    (Api::namespaced_with(layer.client.clone(), &layer.identity.namespace, &resource), name)
}

/// Every child but StatefulSets and pods, by `kind/name`: what of it somebody could have edited.
pub async fn children(layer: &Layer) -> BTreeMap<String, Value> {
    let selector = ListParams::default().labels(&format!("redoubt.dev/layer={}", layer.identity.name));
    let mut all = BTreeMap::new();
    for kind in ["service", "secret", "poddisruptionbudget"] {
        let (api, _) = api_of(layer, &format!("{kind}/"));
        for object in api.list(&selector).await.unwrap() {
            let mut spec = object.data["spec"].clone();
            if kind == "service" && !object.labels().contains_key("redoubt.dev/node") {
                // Only nodes keep their address.
                spec.as_object_mut().unwrap().retain(|field, _| !field.starts_with("clusterIP"));
            }
            let content = json!({
                "labels": object.metadata.labels, "owner": object.metadata.owner_references,
                "spec": spec, "data": object.data["data"], "type": object.data["type"],
            });
            all.insert(format!("{kind}/{}", object.name_any()), content);
        }
    }
    all
}

/// Waits until every child is as it was.
pub async fn are_mended(layer: &Layer, before: &BTreeMap<String, Value>) -> Duration {
    let mut wrong = vec![];
    let mended = eventually_or("every child is as it was", MENDED_WITHIN, async || {
        let now = children(layer).await;
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
