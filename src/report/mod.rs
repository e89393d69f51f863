//! What is told of a layer: conditions, nodes, memory, checklist, and the events of what changed. Pure.
//!
//! Knows the plan, what was observed and how the steps ended. Must never see a client. `Ready` is said only of what this
//! very pass saw on the live servers; whatever is unknown counts as not so.

pub mod audit;
pub mod conditions;
pub mod events;
pub mod nodes;
mod proofs;
pub mod uses;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::data_layer_status::{BindingReference, DataLayerStatus, MemoryStatus};
use crate::api::names;
use crate::model::Purpose;
use crate::model::audit::AuditReport;
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::roles::primary;
use crate::plan::{Plan, Step};

/// What is known of a layer beside `Desired`.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The memory budget; `used` is filled in here.
    pub memory: MemoryStatus,
    /// Whether the layer's data should survive a restart.
    pub keeps_data: bool,
    /// What the data is for.
    pub purpose: Purpose,
    /// Whether there is an application user with a binding Secret.
    pub application_access: bool,
    /// Connections that uses may open together.
    pub max_connections: u32,
    /// What the application user may and should not, or should and may not, with the node; where it was not proven, that.
    pub application_breaches: Vec<String>,
    /// What the last whole pass over the keys found; `None`: nothing is known that goes by the prefixes that are declared now.
    pub audit: Option<Arc<AuditReport>>,
}

/// A step that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The step; `None`: an object without an order.
    pub step: Option<Step>,
    /// Why not.
    pub why: String,
    /// Whether trying again later may help by itself (it is then no degradation yet).
    pub passes: bool,
    /// Whether the object's name belongs to somebody else.
    pub name_taken: bool,
}

/// Everything that a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'pass> {
    /// What is wanted.
    pub desired: &'pass Desired,
    /// What was seen.
    pub observed: &'pass Observed,
    /// What was planned.
    pub plan: &'pass Plan,
    /// What was planned and not done.
    pub undone: &'pass [Undone],
    /// What the servers refused to say, and what data nodes keep aside.
    pub faults: &'pass [String],
    /// Which nodes wait for what only a person ends.
    pub waits: &'pass [String],
    /// More about the layer.
    pub subject: &'pass Subject,
}

/// The status that these facts amount to. `old` keeps the times of conditions that did not change.
pub fn status(facts: Facts<'_>, old: &DataLayerStatus, now: Timestamp) -> DataLayerStatus {
    let primary = primary(facts.desired, facts.observed);
    let conditions = conditions::of(facts, primary);
    let audit = audit::of_layer(facts.subject.audit.as_deref(), old.audit.as_ref());
    let layer = &facts.desired.layer;
    DataLayerStatus {
        observed_generation: Some(facts.desired.generation),
        replicas: i32::try_from(nodes::replicas_in_sync(facts, primary)).ok(),
        selector: Some(format!("{}={},{}=redis", names::LABEL_LAYER, layer.name, names::LABEL_COMPONENT)),
        primary: primary.map(|node| names::node(&layer.name, node)),
        version: nodes::version(facts.observed, primary).or_else(|| old.version.clone()),
        nodes: nodes::of(facts, primary),
        memory: Some(nodes::memory(facts, primary, old)),
        checklist: nodes::checklist(facts, &conditions, audit.as_ref()),
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
        conditions::Said { kind: "Accepted", holds: Some(false), reason, message: message.clone() },
        conditions::Said { kind: "Ready", holds: Some(false), reason: "NotAccepted", message },
    ];
    let progressing = "what was accepted last is kept as it is until the specification is corrected".to_owned();
    said.push(conditions::Said {
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
