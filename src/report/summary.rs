//! What `kubectl get` shows of any object, and what `kstatus`, by which Flux and others wait, makes of it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::draft::{ConditionDraft, ConditionKind, NEEDS_PERSON};

/// How long trouble keeps a change from its end before that counts as a failure: who waits for a change stops to wait then.
const STALLED_AFTER: SignedDuration = SignedDuration::from_mins(1);

fn find(said: &[ConditionDraft], kind: ConditionKind) -> Option<&ConditionDraft> {
    said.iter().find(|draft| draft.kind == kind)
}

/// `Reconciling` or `Stalled`, if one of them is so. `old`: the conditions before, with their times.
pub(super) fn for_waiters(said: &[ConditionDraft], old: &[Condition], now: Timestamp) -> Option<ConditionDraft> {
    let is = |kind: ConditionKind, holds: bool| find(said, kind).filter(|draft| draft.holds == Some(holds));
    let copy = |kind: ConditionKind, of: &ConditionDraft| {
        Some(ConditionDraft::new(kind, Some(true), of.reason.clone(), of.message.clone()))
    };
    if let Some(refused) = is(ConditionKind::Accepted, false) {
        return copy(ConditionKind::Stalled, refused);
    }
    let is_unfinished = is(ConditionKind::Ready, true).is_none() || is(ConditionKind::Progressing, true).is_some();
    if let Some(degraded) = is(ConditionKind::Degraded, true) {
        let since = old.iter().find(|known| known.type_ == ConditionKind::Degraded && known.status == "True");
        let is_old = since.is_some_and(|since| now.duration_since(since.last_transition_time.0) >= STALLED_AFTER);
        let is_final = matches!(
            &*degraded.reason,
            NEEDS_PERSON | "OlderEngine" | "MemoryBelowData" | "LayerRefused" | "NotAccepted"
        );
        if is_final || (is_old && is_unfinished) {
            return copy(ConditionKind::Stalled, degraded);
        }
    }
    is(ConditionKind::Progressing, true).and_then(|progressing| copy(ConditionKind::Reconciling, progressing))
}

/// One word and a sentence: what a person has to know first.
pub(super) fn of(said: &[ConditionDraft]) -> (String, String) {
    let is = |kind: ConditionKind, holds: Option<bool>| find(said, kind).filter(|draft| draft.holds == holds);
    let rests = |draft: &&ConditionDraft| draft.holds != Some(true) && draft.reason == "AsDeclared";
    let first = is(ConditionKind::Accepted, Some(false))
        .or_else(|| is(ConditionKind::Accepted, None))
        .or_else(|| is(ConditionKind::Degraded, Some(true)))
        .or_else(|| is(ConditionKind::Ready, Some(false)))
        .or_else(|| find(said, ConditionKind::Progressing).filter(|draft| !rests(draft)));
    let ready = find(said, ConditionKind::Ready);
    let (word, message): (Cow<'static, str>, String) = match first.or(ready) {
        Some(draft) if draft.kind == ConditionKind::Ready && draft.holds == Some(true) => {
            ("Ready".into(), draft.message.clone())
        }
        Some(draft) => (draft.reason.clone(), draft.message.clone()),
        None => ("Unknown".into(), String::new()),
    };
    (word.into_owned(), message)
}
