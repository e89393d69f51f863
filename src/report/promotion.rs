//! What became of a person's request to move the primary.

use super::{Facts, words};
use crate::api::data_layer_status::PromotionStatus;
use crate::api::names;
use crate::model::NodeKind;
use crate::model::roles::of_kind;
use crate::plan::Promotion;
use crate::plan::promotion::{Impossible, PromotionBlocker};

pub(super) const DONE: &str = "Done";
pub(super) const FAILED: &str = "Failed";
pub(super) const REFUSED: &str = "Refused";
pub(super) const WAITING: &str = "Waiting";
const MOVING: &str = "Moving";

/// Whether the request was answered for good: it is not looked at again, even if another node becomes primary.
pub(crate) fn is_final(status: &PromotionStatus) -> bool {
    status.state == DONE
}

/// Whether the move was tried and failed. It is not tried again; the node may become primary all the same.
pub(crate) fn is_failed(status: &PromotionStatus) -> bool {
    status.state == FAILED
}

/// The status. `old`: as it was told before.
pub(super) fn of(facts: Facts<'_>, old: Option<&PromotionStatus>) -> Option<PromotionStatus> {
    let request = facts.subject.promote.clone()?;
    let Some(promotion) = &facts.plan.promotion else {
        return old.filter(|old| old.request == request).cloned();
    };
    let told_before = old.filter(|old| old.request == request && is_failed(old));
    if let (Promotion::Failed(_), Some(old)) = (promotion, told_before) {
        return Some(old.clone());
    }
    let (state, message) = match promotion {
        Promotion::Done => (DONE, format!("{request} is the primary")),
        Promotion::Failed(why) => (
            FAILED,
            format!(
                "the primary was not moved to {request}: {why}; to try again, remove the annotation {} and set it again",
                names::ANNOTATION_PROMOTE
            ),
        ),
        Promotion::Impossible(why) => (REFUSED, refused(facts, &request, *why)),
        Promotion::Held(held) => (WAITING, waits(facts, &request, held)),
        Promotion::Begins => (MOVING, format!("the primary is being moved to {request}")),
    };
    Some(PromotionStatus { request, state: state.to_owned(), message })
}

fn refused(facts: Facts<'_>, request: &str, why: Impossible) -> String {
    match why {
        Impossible::Standalone => format!("{request} is not made primary: mode Standalone is one node"),
        Impossible::Cluster => format!(
            "{request} is not made primary: in mode Cluster a primary moves when its pod ends; delete the pod of the present one"
        ),
        Impossible::NoDataNode => {
            let pods = of_kind(facts.desired, NodeKind::Data).map(|node| names::pod(&facts.desired.layer.name, node));
            let pods: Vec<String> = pods.collect();
            format!("{request:?} is no data pod of this layer: name one of {}", pods.join(", "))
        }
    }
}

/// Why a request has to wait, as a sentence.
pub(super) fn waits(facts: Facts<'_>, request: &str, held: &PromotionBlocker) -> String {
    let because = match held {
        PromotionBlocker::Waiting(what) => words::waiting(facts, what),
        PromotionBlocker::Refused(what) => words::refused(what),
        PromotionBlocker::Steps => "other changes come first".to_owned(),
    };
    format!("{request} is not made primary yet: {because}")
}
