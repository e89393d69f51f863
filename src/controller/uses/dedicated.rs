//! The layer of a use's own: its specification is the use's `layer.dedicated`, whole. What somebody writes into it by
//! hand is taken back and told of, whether the use names the field or not; annotations are a person's to set.

use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::super::context::Context;
use crate::act::{self, Applied};
use crate::api::data_layer::DataLayer;
use crate::api::uses::DeclaredUse;
use crate::build::uses::dedicated_layer;
use crate::telemetry::Chain;

/// Longest list of fields in an event.
const MOST_FIELDS: usize = 10;

/// Makes the layer as the use wants it; `found` is the one that is there.
pub(super) async fn keep(
    context: &Context,
    declared: &DeclaredUse,
    found: Option<&DataLayer>,
) -> Result<(), act::Error> {
    let wanted = dedicated_layer(declared);
    let spec = json!(wanted.spec);
    // The use's own change is no edit of the layer.
    let is_known_wish = context.writer.is_wish(&wanted);
    let mut edited =
        found.filter(|_| is_known_wish).map(|found| differing(&json!(found.spec), &spec)).unwrap_or_default();
    let live = match context.writer.apply(&wanted, found).await? {
        Applied::Written(written) => Some(*written),
        Applied::Unchanged => found.cloned(),
        Applied::Deleting => None,
    };
    // What the use does not name belongs to whoever wrote it, by the rules of server-side apply: it has to be taken away by name.
    if let Some(live) = live.filter(|live| live.spec != wanted.spec) {
        edited.extend(differing(&json!(live.spec), &spec));
        context.writer.merge_spec(&wanted, &live, correction(&json!(live.spec), &spec)).await?;
    }
    edited.sort();
    edited.dedup();
    if let (Some(found), false) = (found, edited.is_empty()) {
        tell(context, declared, found, &edited).await;
    }
    Ok(())
}

async fn tell(context: &Context, declared: &DeclaredUse, layer: &DataLayer, edited: &[String]) {
    let fields = edited.iter().take(MOST_FIELDS).cloned().collect::<Vec<_>>().join(", ");
    let note = format!(
        "an edit of {fields} was taken back: the layer belongs to {} {}; edit its spec.layer.dedicated instead",
        declared.kind().words().kind,
        declared.name_any()
    );
    let event = Event {
        type_: EventType::Warning,
        reason: "EditUndone".to_owned(),
        note: Some(note),
        action: "Apply".to_owned(),
        secondary: Some(declared.object_ref(&declared.kind())),
    };
    if let Err(error) = context.recorder.publish(&event, &layer.object_ref(&())).await {
        tracing::debug!(error = %Chain(&error), "cannot publish an event");
    }
}

/// Paths of the fields in which two specifications differ.
fn differing(live: &Value, wanted: &Value) -> Vec<String> {
    let (Some(of_live), Some(of_wanted)) = (live.as_object(), wanted.as_object()) else {
        return if live == wanted { Vec::new() } else { vec![String::new()] };
    };
    let names = of_live.keys().chain(of_wanted.keys().filter(|name| !of_live.contains_key(*name)));
    names
        .flat_map(|name| {
            let below =
                differing(of_live.get(name).unwrap_or(&Value::Null), of_wanted.get(name).unwrap_or(&Value::Null));
            below.into_iter().map(move |path| if path.is_empty() { name.clone() } else { format!("{name}.{path}") })
        })
        .collect()
}

/// The merge patch (RFC 7386) that makes `wanted` of `live`.
fn correction(live: &Value, wanted: &Value) -> Value {
    let (Some(of_live), Some(of_wanted)) = (live.as_object(), wanted.as_object()) else { return wanted.clone() };
    let mut patch = Map::new();
    for name in of_live.keys().filter(|name| !of_wanted.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in of_wanted {
        let known = of_live.get(name).unwrap_or(&Value::Null);
        if known != value {
            patch.insert(name.clone(), correction(known, value));
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_edited_is_named_and_taken_back_whoever_names_the_field() {
        let wanted = json!({"mode": "Sentinel", "memory": {"limit": "1Gi"}, "access": {"application": false}});
        let live = json!({"mode": "Sentinel", "replicas": 3, "memory": {"limit": "2Gi", "maxmemoryPercent": 50}});
        assert_eq!(differing(&live, &wanted), ["memory.limit", "memory.maxmemoryPercent", "replicas", "access"]);
        assert_eq!(
            correction(&live, &wanted),
            json!({"replicas": null, "memory": {"limit": "1Gi", "maxmemoryPercent": null}, "access": {"application": false}})
        );
        assert_eq!((differing(&wanted, &wanted), correction(&wanted, &wanted)), (vec![], json!({})));
    }
}
