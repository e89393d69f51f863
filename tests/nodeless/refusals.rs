//! What Kubernetes refuses, and what is taken back.

use k8s_openapi::api::core::v1::{Event, ResourceQuota};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use redoubt::api::data_layer::DataLayer;
use serde_json::json;

use crate::stage::{SOON, Stage, eventually};
use crate::store::Store;

/// A quota refuses the pods of a new layer: its status says so in Kubernetes' words, and the corrected specification is applied.
#[tokio::test]
async fn a_layer_whose_pods_a_quota_refuses_says_so_and_takes_its_correction() {
    let stage = Stage::set("refused-by-quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"limits.memory": "3Gi"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let layer = stage.layer("web", json!({"memory": {"limit": "4Gi"}})).await;
    eventually("the quota is named", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, _, message)| status == "True" && message.contains("exceeded quota: small"))
    })
    .await;
    layer.change(json!({"memory": {"limit": "256Mi"}})).await;
    layer.ready().await;
    stage.strike().await;
}

/// Whether the store names the field or not, an edit of a dedicated layer is taken back and told of.
#[tokio::test]
async fn an_edit_of_a_dedicated_layer_is_taken_back_and_names_the_store() {
    let stage = Stage::set("edited-by-hand").await;
    let spec =
        json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone", "memory": {"limit": "256Mi"}}}});
    let store = Store::create(&stage, "web", spec).await;
    let layers: Api<DataLayer> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let name = "web-sessions";
    eventually("the layer is made", SOON, async || layers.get_opt(name).await.unwrap().is_some()).await;
    let made = layers.get(name).await.unwrap();
    let edit = json!({"spec": {"memory": {"limit": "512Mi"}, "maxConnections": 77, "paused": true}});
    layers.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    eventually("it is as the store has it", SOON, async || layers.get(name).await.unwrap().spec == made.spec).await;
    let events: Api<Event> = Api::namespaced(stage.client.clone(), &stage.namespace);
    eventually("an event names the store", SOON, async || {
        let about = format!("involvedObject.uid={}", made.uid().unwrap());
        let found = events.list(&ListParams::default().fields(&about)).await.unwrap();
        found.items.iter().any(|event| {
            let note = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("EditUndone")
                && note.contains("maxConnections")
                && note.contains("SessionStore web")
        })
    })
    .await;
    drop(store);
    stage.strike().await;
}
