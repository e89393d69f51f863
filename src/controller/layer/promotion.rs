//! What a person asks for by `redoubt.dev/promote`: once. Status remembers what was answered.

use super::super::observation::Observation;
use crate::act::StepOutcome;
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::build::declared;
use crate::model::desired::PromotionRequest;
use crate::plan::Step;
use crate::plan::reason::RestartReason;
use crate::report;
use crate::validate::ValidatedLayer;

/// Characters of a request that are looked at and repeated: more than the name of any pod.
const LONGEST_REQUEST: usize = 100;

/// The text of the annotation. `None`: nothing.
pub(super) fn text(object: &DataLayer) -> Option<String> {
    let value = object.metadata.annotations.as_ref()?.get(names::ANNOTATION_PROMOTE)?.trim();
    (!value.is_empty()).then(|| value.chars().take(LONGEST_REQUEST).collect())
}

/// The request that is not answered yet. A pod of a node that is to be removed is none of the layer's any more.
pub(super) fn request(object: &DataLayer, layer: &ValidatedLayer, seen: &Observation) -> Option<PromotionRequest> {
    let text = text(object)?;
    let status = object.status.as_ref().and_then(|status| status.promotion.as_ref());
    let answered = status.filter(|answered| answered.request == text);
    if answered.is_some_and(report::promotion::is_final) {
        return None;
    }
    let name = &layer.identity.name;
    let is_named = |node: &_| text == names::pod(name, *node) || text == names::node(name, *node);
    let node = declared(layer).into_iter().find(is_named);
    let failed = seen.ended_move.as_ref().and_then(|(step, outcome)| match (step, outcome) {
        (
            Step::Switchover { reason: RestartReason::Requested, to, .. },
            StepOutcome::Failed { why, .. } | StepOutcome::Refused(why),
        ) if *to == node => Some(why.clone()),
        _ => None,
    });
    let failed_before = || answered.filter(|it| report::promotion::is_failed(it)).map(|it| it.message.clone());
    Some(PromotionRequest { node, failed: failed.or_else(failed_before) })
}
