//! What is told of a layer: conditions, nodes, memory, checklist, and the events of what changed. Pure.
//!
//! Knows the plan, what was observed and how the steps ended. Must never see a client. `Ready` is said only of what this
//! very pass saw on the live servers; whatever is unknown counts as not so.

pub mod audit;
pub mod conditions;
pub mod events;
mod facts;
pub mod nodes;
mod proofs;
pub mod uses;

use k8s_openapi::jiff::Timestamp;

pub use self::facts::{Facts, LayerSummary, StepFailure};
use crate::api::data_layer_status::{BindingReference, DataLayerStatus};
use crate::api::names;
use crate::model::roles::primary;

/// The status that these facts amount to. `old` keeps the times of conditions that did not change.
pub fn status(facts: Facts<'_>, old: &DataLayerStatus, now: Timestamp) -> DataLayerStatus {
    let primary = primary(facts.desired, facts.observed);
    let drafts = conditions::of(facts, primary);
    let audit = audit::of_layer(facts.subject.audit.as_deref(), old.audit.as_ref());
    let checklist = nodes::checklist(facts, &drafts, audit.as_ref());
    let conditions = drafts.with_ready(facts, primary);
    let layer = &facts.desired.layer;
    DataLayerStatus {
        observed_generation: Some(facts.desired.generation),
        replicas: i32::try_from(nodes::replicas_in_sync(facts, primary)).ok(),
        selector: Some(format!("{}={},{}=redis", names::LABEL_LAYER, layer.name, names::LABEL_COMPONENT)),
        primary: primary.map(|node| names::node(&layer.name, node)),
        version: nodes::version(facts.observed, primary).or_else(|| old.version.clone()),
        nodes: nodes::of(facts, primary),
        memory: Some(nodes::memory(facts, primary, old)),
        checklist,
        audit,
        binding: facts
            .subject
            .application_access
            .then(|| BindingReference { name: names::application_secret(&layer.name) }),
        conditions: conditions::timed(conditions, facts.desired.generation, &old.conditions, now),
        // Stored by itself, before any newcomer gets a user.
        tenants: old.tenants.clone(),
    }
}

/// The status of a layer whose specification is not accepted: `status` is what is known of its servers, and `Ready` is not
/// so. `old` keeps the times of conditions that did not change.
pub fn not_accepted(
    generation: i64,
    reason: &'static str,
    faults: &[String],
    mut status: DataLayerStatus,
    old: &DataLayerStatus,
    now: Timestamp,
) -> DataLayerStatus {
    let message = faults.join("; ");
    let mut said = vec![
        conditions::ConditionDraft { kind: "Accepted", holds: Some(false), reason, message: message.clone() },
        conditions::ConditionDraft { kind: "Ready", holds: Some(false), reason: "NotAccepted", message },
    ];
    let progressing = "what was accepted last is kept as it is until the specification is corrected".to_owned();
    said.push(conditions::ConditionDraft {
        kind: "Progressing",
        holds: Some(false),
        reason: "NotAccepted",
        message: progressing,
    });
    let mut renewed = conditions::timed(said, generation, &old.conditions, now);
    status.conditions.retain(|known| !renewed.iter().any(|new| new.type_ == known.type_));
    renewed.append(&mut status.conditions);
    status.conditions = renewed;
    status.observed_generation = Some(generation);
    status
}
