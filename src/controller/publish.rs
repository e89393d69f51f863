//! The end of a pass: one patch of status, if it differs, and the events of what changed.

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::Context;
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::failure::{Request, request};
use crate::report::events::transitions;
use crate::telemetry::Chain;

/// Now, in whole seconds: conditions hold no fractions, so a status that is read back must compare as equal.
pub fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes the status if it differs from what is stored, and publishes what changed.
pub async fn publish(context: &Context, layer: &DataLayer, status: &DataLayerStatus) -> Result<(), Request> {
    let old = layer.status.clone().unwrap_or_default();
    if *status == old {
        return Ok(());
    }
    let (name, namespace) = (layer.name_any(), layer.namespace().unwrap_or_default());
    let api: Api<DataLayer> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": DataLayer::api_version(&()),
        "kind": DataLayer::kind(&()),
        // With the UID, what was found out about one layer is never told of its successor.
        "metadata": {"name": name, "namespace": namespace, "uid": layer.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER_STATUS).force();
    let object = format!("the status of DataLayer {namespace}/{name}");
    request("patch", &object, api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    context.metrics.write("Status");
    for transition in transitions(&old, status) {
        let event = Event {
            type_: if transition.warning { EventType::Warning } else { EventType::Normal },
            reason: transition.reason,
            note: Some(transition.note),
            action: transition.action,
            secondary: None,
        };
        // An event that is lost changes nothing: status has said it.
        if let Err(error) = context.recorder.publish(&event, &layer.object_ref(&())).await {
            tracing::warn!(error = %Chain(&error), "cannot publish an event");
        }
        context.metrics.write("Event");
    }
    Ok(())
}
