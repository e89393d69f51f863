//! What `kubectl get` shows of any object, and what `kstatus`, by which Flux and others wait, makes of it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::draft::{ConditionDraft, NEEDS_PERSON};

/// How long trouble keeps a change from its end before that counts as a failure: who waits for a change stops to wait then.
const STALLED_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Conditions that `kstatus` knows. They are there while they are true, and only then.
pub(super) const RECONCILING: &str = "Reconciling";
pub(super) const STALLED: &str = "Stalled";

fn find<'a>(said: &'a [ConditionDraft], kind: &str) -> Option<&'a ConditionDraft> {
    said.iter().find(|draft| draft.kind == kind)
}

/// `Reconciling` or `Stalled`, if one of them is so. `old`: the conditions before, with their times.
pub(super) fn for_waiters(said: &[ConditionDraft], old: &[Condition], now: Timestamp) -> Option<ConditionDraft> {
    let is = |kind: &str, holds: bool| find(said, kind).filter(|draft| draft.holds == Some(holds));
    let copy = |kind: &'static str, of: &ConditionDraft| {
        Some(ConditionDraft::said(kind, Some(true), of.reason.clone(), of.message.clone()))
    };
    if let Some(refused) = is("Accepted", false) {
        return copy(STALLED, refused);
    }
    let is_unfinished = is("Ready", true).is_none() || is("Progressing", true).is_some();
    if let Some(degraded) = is("Degraded", true) {
        let since = old.iter().find(|known| known.type_ == "Degraded" && known.status == "True");
        let is_old = since.is_some_and(|since| now.duration_since(since.last_transition_time.0) >= STALLED_AFTER);
        let is_final = matches!(
            &*degraded.reason,
            NEEDS_PERSON | "OlderEngine" | "MemoryBelowData" | "LayerRefused" | "NotAccepted"
        );
        if is_final || (is_old && is_unfinished) {
            return copy(STALLED, degraded);
        }
    }
    is("Progressing", true).and_then(|progressing| copy(RECONCILING, progressing))
}

/// One word and a sentence: what a person has to know first.
pub(super) fn of(said: &[ConditionDraft]) -> (String, String) {
    let is = |kind: &str, holds: Option<bool>| find(said, kind).filter(|draft| draft.holds == holds);
    let rests = |draft: &&ConditionDraft| draft.holds != Some(true) && draft.reason == "AsDeclared";
    let first = is("Accepted", Some(false))
        .or_else(|| is("Accepted", None))
        .or_else(|| is("Degraded", Some(true)))
        .or_else(|| is("Ready", Some(false)))
        .or_else(|| find(said, "Progressing").filter(|draft| !rests(draft)));
    let ready = find(said, "Ready");
    let (word, message): (Cow<'static, str>, String) = match first.or(ready) {
        Some(draft) if draft.kind == "Ready" && draft.holds == Some(true) => ("Ready".into(), draft.message.clone()),
        Some(draft) => (draft.reason.clone(), draft.message.clone()),
        None => ("Unknown".into(), String::new()),
    };
    (word.into_owned(), message)
}
