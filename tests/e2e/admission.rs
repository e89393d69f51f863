//! The API server refuses what the rules refuse: offline evaluation knows neither its cost budget nor its patterns.

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use redoubt::api::data_layer::DataLayer;
use serde_json::{Value, json};

use crate::bad_layers::bad_layers;

async fn try_create(name: &str, spec: &Value) -> Result<(), String> {
    let kind = GroupVersionKind::gvk("redoubt.dev", "v1alpha1", "DataLayer");
    let resource = ApiResource::erase::<DataLayer>(&());
    let layers: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}, "spec": spec,
    });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let created = layers.create(&dry_run, &serde_json::from_value(object).unwrap()).await;
    created.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn bad_layers_are_refused_with_the_reason() {
    for (name, spec, reason) in bad_layers() {
        let refused = try_create(&name, &spec).await.expect_err(&format!("accepted: {spec}"));
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn the_smallest_layer_is_accepted() {
    assert_eq!(try_create("web", &json!({"mode": "Sentinel"})).await, Ok(()));
}
