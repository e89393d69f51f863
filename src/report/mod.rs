//! What is told of a layer: conditions, nodes, memory, checklist, and the events of what changed. Pure.
//!
//! Knows the plan, what was observed and how the steps ended. Must never see a client. `Ready` is said only of what this
//! very pass saw on the live servers; whatever is unknown counts as not so.

mod agreement;
pub(crate) mod audit;
pub(crate) mod conditions;
mod degraded;
pub mod draft;
pub mod events;
mod facts;
mod kept;
mod layer_words;
pub(crate) mod nodes;
pub mod promotion;
mod proofs;
mod service;
mod summary;
pub mod uses;
mod words;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use self::draft::{ConditionDraft, ConditionKind};
pub(crate) use self::facts::NOT_PROVEN_YET;
pub use self::facts::{Facts, LayerSummary, StepFailure};
use crate::api::data_layer_status::{BindingReference, DataLayerStatus};
use crate::api::names;
use crate::model::NodeKind;
use crate::model::roles::{of_kind, primaries, shards};

/// The status that these facts amount to. `old` keeps the times of conditions that did not change.
pub fn status(facts: Facts<'_>, old: &DataLayerStatus, now: Timestamp) -> DataLayerStatus {
    let primaries = &primaries(facts.desired, facts.observed);
    let kept = kept::of(facts, &old.nodes);
    let drafts = conditions::of(facts, primaries, &kept, &old.conditions, now);
    let audit = audit::of_layer(facts.subject.audit.as_deref(), old.audit.as_ref());
    let checklist = nodes::checklist(facts, &drafts, audit.as_ref());
    let mut conditions = conditions::with_ready(drafts, facts, primaries, &old.conditions);
    conditions.extend(summary::for_waiters(&conditions, &old.conditions, now));
    let (state, message) = summary::of(&conditions);
    let in_sync = nodes::replicas_in_sync(facts, primaries);
    let shards = shards(facts.desired).len();
    let declared = of_kind(facts.desired, NodeKind::Data).count().saturating_sub(shards);
    let layer = &facts.desired.layer;
    DataLayerStatus {
        observed_generation: Some(facts.desired.generation),
        state: Some(state),
        message: Some(message),
        initialised: (facts.observed.initialised || old.initialised == Some(true)).then_some(true),
        replicas: i32::try_from(nodes::replicas_of_each(facts, primaries)).ok(),
        replicas_in_sync: Some(format!("{in_sync}/{declared}")),
        image: Some(facts.subject.image.clone()),
        selector: Some(format!("{}={},{}=redis", names::LABEL_LAYER, layer.name, names::LABEL_COMPONENT)),
        primary: primaries.first().filter(|_| !facts.desired.in_cluster).map(|node| names::node(&layer.name, node)),
        shards: facts.desired.in_cluster.then(|| format!("{}/{shards}", nodes::shards_served(facts, primaries))),
        version: nodes::version(facts.observed, primaries).or_else(|| old.version.clone()),
        nodes: nodes::of(facts, primaries, &kept),
        memory: Some(nodes::memory(facts, primaries, old)),
        checklist,
        audit,
        binding: facts
            .subject
            .application_access
            .then(|| BindingReference { name: names::application_secret(&layer.name) }),
        administrator: facts
            .subject
            .administrator_access
            .then(|| BindingReference { name: names::administrator_secret(&layer.name) }),
        conditions: conditions::timed(conditions, facts.desired.generation, &old.conditions, now),
        promotion: promotion::of(facts, old.promotion.as_ref()),
        // Stored by itself, before any newcomer gets a user.
        tenants: old.tenants.clone(),
    }
}

/// The status of a layer whose specification was never accepted: nothing is served. `old` keeps the times of conditions that did not
/// change.
pub fn not_accepted(generation: i64, faults: &[String], old: &DataLayerStatus, now: Timestamp) -> DataLayerStatus {
    let message = faults.join("; ");
    let said = vec![
        ConditionDraft::new(ConditionKind::Accepted, Some(false), "Invalid", message.clone()),
        ConditionDraft::new(ConditionKind::Ready, Some(false), "NotAccepted", message),
        ConditionDraft::new(
            ConditionKind::Progressing,
            Some(false),
            "NotAccepted",
            "nothing is done until the specification is corrected",
        ),
    ];
    renewed(generation, said, old.clone(), old, now)
}

/// The status of a layer with a change that is refused: it goes on as it was accepted before. `status` is what is known of it, and
/// stays true; only a layer that never served has its `Ready` told by the refusal.
pub fn change_refused(
    generation: i64,
    reason: &'static str,
    faults: &[String],
    has_served: bool,
    status: DataLayerStatus,
    old: &DataLayerStatus,
    now: Timestamp,
) -> DataLayerStatus {
    let message = faults.join("; ");
    let mut said = vec![ConditionDraft::new(ConditionKind::Accepted, Some(false), reason, message.clone())];
    if !has_served {
        said.push(ConditionDraft::new(ConditionKind::Ready, Some(false), "NotAccepted", message));
    }
    let is_resting =
        status.conditions.iter().any(|known| known.type_ == ConditionKind::Progressing && known.status != "True");
    if is_resting {
        let words = "what was accepted last stays in force until the specification is corrected";
        said.push(ConditionDraft::new(ConditionKind::Progressing, Some(false), "NotAccepted", words));
    }
    renewed(generation, said, status, old, now)
}

/// A status with some of its conditions told otherwise.
fn renewed(
    generation: i64,
    mut said: Vec<ConditionDraft>,
    mut status: DataLayerStatus,
    old: &DataLayerStatus,
    now: Timestamp,
) -> DataLayerStatus {
    let (state, message) = summary::of(&said);
    said.extend(summary::for_waiters(&said, &old.conditions, now));
    let mut renewed = conditions::timed(said, generation, &old.conditions, now);
    let is_stale = |known: &Condition| {
        [ConditionKind::Reconciling, ConditionKind::Stalled].iter().any(|kind| known.type_ == *kind)
            || renewed.iter().any(|new| new.type_ == known.type_)
    };
    status.conditions.retain(|known| !is_stale(known));
    renewed.append(&mut status.conditions);
    status.conditions = renewed;
    (status.state, status.message) = (Some(state), Some(message));
    status.observed_generation = Some(generation);
    status
}
