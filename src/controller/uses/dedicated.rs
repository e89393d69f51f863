//! The layer of a use's own: its specification is the use's `layer.dedicated`, whole. What is written into it by
//! hand is taken back and told of, whether the use names the field or not, and is not carried out meanwhile: pods that were made
//! without volumes, for an edit of a second, never get them. Annotations are a person's to set.

use std::borrow::Cow;

use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::super::context::Context;
use crate::act::{self, Applied};
use crate::api::data_layer::{DataLayer, DataLayerSpec};
use crate::api::uses::DeclaredUse;
use crate::build::uses::dedicated_layer;
use crate::model::UseKind;
use crate::telemetry::Chain;
use crate::validate::uses::is_dedicated;

/// Longest list of fields in an event.
const MOST_FIELDS: usize = 10;

/// Fields that no edit of a layer takes away again, and what names them.
const STAYS: [(&str, &str); 2] =
    [("/engine/image", "engine.image"), ("/persistence/volume/size", "persistence.volume.size")];

/// Makes the layer as the use wants it; `found` is the one that is there. Answers what of an edit by hand cannot be taken back.
pub(super) async fn keep(
    context: &Context,
    declared: &DeclaredUse,
    found: Option<&DataLayer>,
) -> Result<Option<String>, act::Error> {
    let wanted = dedicated_layer(declared);
    let spec = json!(wanted.spec);
    // What stays is told in the status, not again and again in an event.
    let attainable = |live: &DataLayer| with_what_stays(&json!(live.spec), &spec);
    // The use's own change is no edit of the layer.
    let is_known_wish = context.writer.is_last_applied(&wanted);
    let mut edited = found
        .filter(|_| is_known_wish)
        .map(|found| differing(&json!(found.spec), &attainable(found)))
        .unwrap_or_default();
    let live = match context.writer.apply(&wanted, found).await? {
        Applied::Written(written) => Some(*written),
        Applied::Unchanged => found.cloned(),
        Applied::Deleting => None,
    };
    // What the use does not name belongs to the manager that wrote it, by the rules of server-side apply: it has to be taken away by name.
    let mut stays = None;
    if let Some(live) = live.filter(|live| live.spec != wanted.spec) {
        let attainable = attainable(&live);
        let differing = differing(&json!(live.spec), &attainable);
        if !differing.is_empty() {
            edited.extend(differing);
            context.writer.merge_spec(&wanted, &live, correction(&json!(live.spec), &attainable)).await?;
        }
        stays = what_stays(&attainable, &spec);
    }
    edited.sort();
    edited.dedup();
    if let (Some(found), false) = (found, edited.is_empty()) {
        publish_reverted_edit(context, declared, found, &edited).await;
    }
    Ok(stays)
}

/// A layer without what was written by hand into the specification that its use wants and that the API server took; one of no use as
/// it is. `None`: no pass over its use has ended yet, and the first wakes the layer.
pub(in crate::controller) fn without_edits<'a>(context: &Context, layer: &'a DataLayer) -> Option<Cow<'a, DataLayer>> {
    let as_it_is = Some(Cow::Borrowed(layer));
    let Some(owner) = layer.owner_references().iter().find(|owner| owner.controller == Some(true)) else {
        return as_it_is;
    };
    let Some(kind) = UseKind::of(&owner.kind) else { return as_it_is };
    let place = (kind, (layer.namespace().unwrap_or_default(), owner.name.clone()));
    let watched = context.declared_use(&place);
    let Some(Ok(declared)) = watched.as_deref().map(|watched| &watched.0) else { return as_it_is };
    let is_kept = declared.uid().as_ref() == Some(&owner.uid)
        && declared.metadata.deletion_timestamp.is_none()
        && is_dedicated(declared);
    if !is_kept {
        return as_it_is;
    }
    if !context.uses.is_layer_kept(&owner.uid) {
        return None;
    }
    let wanted = dedicated_layer(declared);
    if !context.writer.is_last_applied(&wanted) {
        // The use has just changed, or the API server refused what it wants: then the layer runs on as it is.
        return as_it_is;
    }
    let attainable = with_what_stays(&json!(layer.spec), &json!(wanted.spec));
    match serde_json::from_value::<DataLayerSpec>(attainable) {
        Ok(spec) if spec != layer.spec => Some(Cow::Owned(DataLayer { spec, ..layer.clone() })),
        Ok(_) | Err(_) => as_it_is,
    }
}

/// The specification that the use wants, with those fields of the live one that it does not name and that cannot be removed.
fn with_what_stays(live: &Value, wanted: &Value) -> Value {
    let mut attainable = wanted.clone();
    for (pointer, _) in STAYS {
        if let (Some(value), None) = (live.pointer(pointer), wanted.pointer(pointer)) {
            let mut at = &mut attainable;
            for name in pointer.split('/').skip(1) {
                at = &mut at[name];
            }
            *at = value.clone();
        }
    }
    attainable
}

/// What is told of the fields that differ all the same.
fn what_stays(attainable: &Value, wanted: &Value) -> Option<String> {
    let names: Vec<&str> = STAYS
        .iter()
        .filter(|(pointer, _)| attainable.pointer(pointer) != wanted.pointer(pointer))
        .map(|(_, name)| *name)
        .collect();
    (!names.is_empty()).then(|| {
        let names = names.join(" and ");
        format!("{names} of the layer was set by hand, and a layer keeps it: set it in layer.dedicated as it is to be")
    })
}

async fn publish_reverted_edit(context: &Context, declared: &DeclaredUse, layer: &DataLayer, edited: &[String]) {
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
    fn what_was_edited_is_named_and_taken_back_whichever_manager_names_the_field() {
        let wanted = json!({"mode": "Sentinel", "memory": {"limit": "1Gi"}, "access": {"application": false}});
        let live = json!({"mode": "Sentinel", "replicas": 3, "memory": {"limit": "2Gi", "maxmemoryPercent": 50}});
        assert_eq!(differing(&live, &wanted), ["memory.limit", "memory.maxmemoryPercent", "replicas", "access"]);
        assert_eq!(
            correction(&live, &wanted),
            json!({"replicas": null, "memory": {"limit": "1Gi", "maxmemoryPercent": null}, "access": {"application": false}})
        );
        assert_eq!((differing(&wanted, &wanted), correction(&wanted, &wanted)), (vec![], json!({})));
    }

    /// The API server refused the whole correction because of such a field, so all other edits stayed too.
    #[test]
    fn what_cannot_be_removed_keeps_no_other_edit_in_force_and_is_reported() {
        let wanted = json!({"mode": "Sentinel", "engine": {"pullPolicy": "Never"}, "replicas": 2});
        let live = json!({
            "mode": "Sentinel", "engine": {"image": "redis:8.0"}, "persistence": {"volume": {"size": "1Gi"}, "snapshots": true}, "paused": true,
        });
        let attainable = with_what_stays(&live, &wanted);
        assert_eq!(
            correction(&live, &attainable),
            json!({"engine": {"pullPolicy": "Never"}, "persistence": {"snapshots": null}, "paused": null, "replicas": 2})
        );
        let told = what_stays(&attainable, &wanted).unwrap();
        assert!(told.starts_with("engine.image and persistence.volume.size of the layer"), "{told}");
        assert_eq!(what_stays(&with_what_stays(&wanted, &wanted), &wanted), None);
    }

    /// Of every field that a layer has, whether the use names it or not.
    #[test]
    fn a_correction_makes_of_any_specification_the_one_that_is_wanted() {
        fn merge(target: &mut Value, patch: &Value) {
            let Some(fields) = patch.as_object() else {
                *target = patch.clone();
                return;
            };
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    target.as_object_mut().unwrap().remove(name);
                } else {
                    merge(&mut target[name], value);
                }
            }
        }
        let whole = json!({
            "mode": "Sentinel", "purpose": "Cache", "replicas": 3, "maxConnections": 7, "cpu": "1", "paused": true,
            "engine": {"image": "redis:8.0", "pullPolicy": "Always", "pullSecrets": [{"name": "a"}]},
            "memory": {"limit": "1Gi", "maxmemoryPercent": 40, "evictionPolicy": "noeviction"},
            "persistence": {"appendOnly": true, "snapshots": false, "volume": {"size": "1Gi", "reclaim": "Delete"}},
            "durability": {"minReplicasToWrite": 1, "maxReplicaLag": 4}, "config": {"timeout": "1", "databases": "2"},
            "failover": {"sentinels": 5, "quorum": 3, "detection": "2s", "sentinelVolume": {"size": "2Gi"}},
            "access": {"application": true, "namespaces": {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}},
            "update": {"approval": "Manual"}, "audit": {"mode": "Repair"}, "podMetadata": {"labels": {"a": "b"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a"}], "priorityClassName": "p"},
        });
        let least = json!({"mode": "Sentinel"});
        for name in whole.as_object().unwrap().keys() {
            let one = json!({"mode": "Sentinel", name.as_str(): whole[name]});
            for (live, wanted) in [(&one, &least), (&least, &one), (&whole, &one), (&one, &whole)] {
                let mut patched = live.clone();
                merge(&mut patched, &correction(live, wanted));
                let left = differing(&patched, wanted);
                // An object without fields is none.
                assert!(
                    left.iter()
                        .all(|path| patched.pointer(&format!("/{}", path.replace('.', "/"))) == Some(&json!({}))),
                    "{left:?}"
                );
            }
        }
    }
}
