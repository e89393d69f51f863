//! The end of a pass: one patch of status, if it differs, and the events of what changed.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::context::Context;
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::api::use_status::UseStatus;
use crate::api::uses::DeclaredUse;
use crate::failure::{Class, Request, request};
use crate::report::events::{Transition, of_conditions, transitions};
use crate::telemetry::Chain;

/// Kubernetes takes no longer note: characters.
const LONGEST_NOTE: usize = 1000;

/// Now, in whole seconds: conditions hold no fractions, so a status that is read back must compare as equal.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes the status of a layer if it differs from what is stored, and publishes what changed.
pub(super) async fn publish(context: &Context, layer: &DataLayer, status: &DataLayerStatus) -> Result<(), Request> {
    let old = layer.status.clone().unwrap_or_default();
    // The list of tenants has a field manager of its own (`tenants`), and is never written with the rest.
    let status = DataLayerStatus { tenants: None, ..status.clone() };
    if status == (DataLayerStatus { tenants: None, ..old.clone() }) {
        return Ok(());
    }
    write(context, layer, &(), &json!(status), transitions(&old, &status)).await
}

/// The same of a use.
pub(super) async fn publish_use(context: &Context, declared: &DeclaredUse, status: &UseStatus) -> Result<(), Request> {
    let old = declared.status.clone().unwrap_or_default();
    if *status == old {
        return Ok(());
    }
    write(context, declared, &declared.kind(), &json!(status), of_conditions(&old.conditions, &status.conditions)).await
}

/// Publishes a warning about an object.
pub(super) async fn warn(context: &Context, object: &ObjectReference, reason: &str, action: &str, note: &str) {
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note.chars().take(LONGEST_NOTE).collect()),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, object).await {
        tracing::debug!(error = %Chain(&error), "cannot publish an event");
    }
    context.metrics.write("Event");
}

/// Tells in an event what the status cannot tell: the API server takes no status of an object that breaks its own rules. Once for
/// each version of the object.
async fn warn_unwritable<K: Resource>(context: &Context, object: &K, kind: &K::DynamicType, error: &Request) {
    if context.unreadable.is_news(object.meta()) {
        let note = format!("no status can be written until the object is corrected: {}", Chain(error));
        warn(context, &object.object_ref(kind), "StatusRefused", "Report", &note).await;
    }
}

async fn write<K: Resource>(
    context: &Context,
    object: &K,
    kind: &K::DynamicType,
    status: &Value,
    news: Vec<Transition>,
) -> Result<(), Request> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let resource = ApiResource::erase::<K>(kind);
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let patch = json!({
        "apiVersion": K::api_version(kind),
        "kind": K::kind(kind),
        // With the UID, what was found out about one object is never told of its successor.
        "metadata": {"name": name, "namespace": namespace, "uid": object.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER_STATUS).force();
    let words = format!("the status of {} {namespace}/{name}", K::kind(kind));
    if let Err(error) = request("patch", &words, api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await {
        if error.class() == Class::Invalid {
            warn_unwritable(context, object, kind, &error).await;
        }
        return Err(error);
    }
    context.metrics.write("Status");
    for transition in news {
        let event = Event {
            type_: if transition.warning { EventType::Warning } else { EventType::Normal },
            reason: transition.reason,
            note: Some(transition.note),
            action: transition.action,
            secondary: None,
        };
        // An event that is lost changes nothing: status has said it.
        if let Err(error) = context.recorder.publish(&event, &object.object_ref(kind)).await {
            tracing::warn!(error = %Chain(&error), "cannot publish an event");
        }
        context.metrics.write("Event");
    }
    Ok(())
}
