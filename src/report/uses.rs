//! What is told of a use. Pure; `Ready` is said only of what this very pass of its layer saw.

mod columns;
mod conditions;
mod facts;

use k8s_openapi::jiff::Timestamp;

use self::columns::{counters, hit_ratio, listed, names};
use self::conditions::{condition, of_accepted};
pub use self::facts::{LibraryTrouble, UseFacts};
use super::audit;
use super::conditions::timed;
use super::draft::{ConditionDraft, ConditionKind};
pub use super::layer_words::{LayerCause, LayerNote};
use super::summary;
use crate::api::data_layer_status::BindingReference;
use crate::api::use_status::{LayerReference, UseStatus};
use crate::model::UseKind;

/// The status of an accepted use.
pub fn status(facts: &UseFacts, old: &UseStatus, now: Timestamp) -> UseStatus {
    // One whose binding was written before keeps its user: what is taken is the name only.
    if facts.name_taken && facts.binding.is_none() && facts.rotation.is_none() {
        let why = facts.binding_trouble.clone().unwrap_or_default();
        return refused(facts.kind, facts.generation, "NameTaken", &why, Some(facts.layer_reference()), old, now);
    }
    let mut conditions = of_accepted(facts, &old.conditions);
    let (state, message) = finish(&mut conditions, old, now);
    // A library that was lost is loaded again: until then the users keep their rights.
    let function_names = facts.function_names.as_ref().map_or_else(|| old.function_names.clone(), listed);
    UseStatus {
        state,
        message,
        names: names(&facts.limits, &function_names),
        observed_generation: Some(facts.generation),
        conditions: timed(conditions, facts.generation, &old.conditions, now),
        layer: Some(facts.layer_reference()),
        binding: facts.binding.clone().map(|name| BindingReference { name }),
        export: facts.export.clone().map(|name| BindingReference { name }),
        functions: facts.functions_loaded.then(|| facts.functions.clone()).or_else(|| old.functions.clone()),
        user: facts.user.clone(),
        rotation: facts.rotation.clone(),
        admission: facts.admission.clone().or_else(|| old.admission.clone()),
        audit: audit::of_use(facts.audit.as_deref(), &facts.prefix, old.audit.as_ref())
            .filter(|_| facts.kind.has_user()),
        budget: audit::of_budget(facts.budget, facts.audit.as_deref(), &facts.prefix, old.budget.as_ref()),
        limits: facts.limits.clone(),
        counters: facts.counters.as_ref().map_or_else(|| old.counters.clone(), |rows| counters(facts.kind, rows)),
        hit_ratio: facts.counters.as_ref().map_or(old.hit_ratio, |rows| hit_ratio(facts.kind, rows, old.hit_ratio)),
        invalidation: facts.invalidation.clone(),
        function_names,
        engine: facts.engine.clone().or_else(|| old.engine.clone()),
    }
}

/// Adds what `kstatus` waits for; answers what `kubectl get` shows.
fn finish(conditions: &mut Vec<ConditionDraft>, old: &UseStatus, now: Timestamp) -> (Option<String>, Option<String>) {
    conditions.extend(summary::for_waiters(conditions, &old.conditions, now));
    let (state, message) = summary::of(conditions);
    (Some(state), Some(message))
}

/// The status of a use that its layer does not serve.
pub fn refused(
    kind: UseKind,
    generation: i64,
    reason: &'static str,
    message: &str,
    layer: Option<LayerReference>,
    old: &UseStatus,
    now: Timestamp,
) -> UseStatus {
    let was_served = old.conditions.iter().any(|known| {
        known.status == "True"
            && (known.type_ == ConditionKind::Ready
                || (known.type_ == ConditionKind::Degraded && known.reason == "NotAccepted"))
    });
    let degraded = if was_served {
        let message = match reason {
            "LayerNotFound" if !kind.has_user() => format!("it was served before; its layer is gone: {message}"),
            "LayerNotFound" => format!("it was served before; its layer is gone and its binding is removed: {message}"),
            _ if !kind.has_user() => format!("it was served before; its functions are removed: {message}"),
            _ => format!(
                "it was served before; its user and binding are removed, its keys stay until their TTL: {message}"
            ),
        };
        condition(ConditionKind::Degraded, Some(true), "NotAccepted", message)
    } else {
        condition(ConditionKind::Degraded, Some(false), "AsDeclared", "it was never served")
    };
    let mut conditions = vec![
        condition(ConditionKind::Accepted, Some(false), reason, message),
        condition(ConditionKind::Ready, Some(false), "NotAccepted", message),
        condition(ConditionKind::Progressing, Some(false), "NotAccepted", "nothing is done until that changes"),
        degraded,
    ];
    let (state, message) = finish(&mut conditions, old, now);
    UseStatus {
        state,
        message,
        observed_generation: Some(generation),
        conditions: timed(conditions, generation, &old.conditions, now),
        layer,
        // A use that loses its leave has no place to come back to; all other obstacles pass.
        admission: old.admission.clone().filter(|_| reason != "NotAllowed"),
        ..UseStatus::default()
    }
}

/// The status of a use whose dedicated layer is being made.
pub fn pending(kind: UseKind, generation: i64, layer: LayerReference, old: &UseStatus, now: Timestamp) -> UseStatus {
    let message = "its layer is being made";
    let mut conditions = vec![
        condition(
            ConditionKind::Accepted,
            Some(true),
            "Valid",
            format!("the layer is of the {}'s own", kind.words().noun),
        ),
        condition(ConditionKind::Ready, Some(false), "LayerPending", message),
        condition(ConditionKind::Progressing, Some(true), "LayerPending", message),
        condition(ConditionKind::Degraded, Some(false), "AsDeclared", "nothing is wrong"),
    ];
    let (state, message) = finish(&mut conditions, old, now);
    UseStatus {
        state,
        message,
        observed_generation: Some(generation),
        conditions: timed(conditions, generation, &old.conditions, now),
        layer: Some(layer),
        rotation: old.rotation.clone(),
        admission: old.admission.clone(),
        ..UseStatus::default()
    }
}
