//! What is worth an event: a condition that changed, told once. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::{ConditionKind, NEEDS_PERSON, UNKNOWN_DIRECTIVES};
use super::kept;
use super::promotion::{DONE, FAILED, REFUSED, WAITING};
use crate::api::data_layer_status::{DataLayerStatus, PromotionStatus};

/// Characters of a note; the API server takes 1 kB.
const LONGEST_NOTE: usize = 1000;

/// An event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether it is bad news.
    pub warning: bool,
    /// The condition's type and new status, `ReadyTrue`: the action.
    pub action: String,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub note: String,
}

/// Conditions whose changes are events. Each of the others is a part of these, or changes with every step of what is planned.
const CONDITIONS_WITH_EVENTS: [ConditionKind; 4] =
    [ConditionKind::Ready, ConditionKind::Accepted, ConditionKind::Degraded, ConditionKind::EvictionSuits];

/// The transitions between two statuses.
pub fn transitions(old: &DataLayerStatus, new: &DataLayerStatus) -> Vec<Transition> {
    let mut transitions = of_conditions(&old.conditions, &new.conditions);
    if new.primary.is_some() && old.primary.is_some() && new.primary != old.primary {
        let name = |status: &DataLayerStatus| status.primary.clone().unwrap_or_default();
        transitions.push(Transition {
            warning: false,
            action: "PrimaryMoved".to_owned(),
            reason: "PrimaryMoved".to_owned(),
            note: format!("the primary moved from {} to {}", name(old), name(new)),
        });
    }
    transitions.extend(promotion(old.promotion.as_ref(), new.promotion.as_ref()));
    for (folder, note) in kept::news(&old.nodes, &new.nodes) {
        // `Degraded` may say it just now, and is an event then.
        if !transitions.iter().any(|told| told.note.contains(&folder)) {
            let word = kept::DATA_KEPT_ASIDE.to_owned();
            transitions.push(Transition { warning: true, action: word.clone(), reason: word, note });
        }
    }
    transitions
}

/// The transitions between two lists of conditions.
pub fn of_conditions(old: &[Condition], new: &[Condition]) -> Vec<Transition> {
    let mut transitions = Vec::new();
    let has_events = |condition: &&Condition| CONDITIONS_WITH_EVENTS.iter().any(|kind| condition.type_ == *kind);
    for condition in new.iter().filter(has_events) {
        let before = old.iter().find(|known| known.type_ == condition.type_);
        let holds = condition.status == "True";
        let warns = condition.reason == UNKNOWN_DIRECTIVES;
        let is_bad = warns || holds == (condition.type_ == ConditionKind::Degraded);
        // What was never said before is news only if it is what everybody waits for, or a refusal.
        let is_news = match before {
            _ if warns => before.is_none_or(|before| before.message != condition.message),
            Some(before) => {
                // A layer may be in trouble for long before it turns out that only a person ends it.
                let is_new_wait = condition.reason == NEEDS_PERSON && before.reason != NEEDS_PERSON;
                before.status != condition.status || is_new_wait
            }
            None if holds => {
                [ConditionKind::Ready, ConditionKind::Degraded].iter().any(|kind| condition.type_ == *kind)
            }
            None => condition.type_ == ConditionKind::Accepted,
        };
        if is_news {
            transitions.push(Transition {
                warning: is_bad,
                action: format!("{}{}", condition.type_, condition.status),
                reason: condition.reason.clone(),
                note: condition.message.chars().take(LONGEST_NOTE).collect(),
            });
        }
    }
    transitions
}

/// What of a change is worth an event: that a request waits from its beginning, and how it ended.
fn promotion(old: Option<&PromotionStatus>, new: Option<&PromotionStatus>) -> Option<Transition> {
    let new = new?;
    let before = old.filter(|old| old.request == new.request).map(|old| old.state.as_str());
    if before == Some(new.state.as_str()) {
        return None;
    }
    let reason = match (new.state.as_str(), before) {
        (DONE, _) => "Promoted",
        (FAILED, _) => "PromotionFailed",
        (REFUSED, _) => "PromotionRefused",
        (WAITING, None) => "PromotionWaits",
        _ => return None,
    };
    Some(Transition {
        warning: [FAILED, REFUSED].contains(&new.state.as_str()),
        action: reason.to_owned(),
        reason: reason.to_owned(),
        note: new.message.clone(),
    })
}
