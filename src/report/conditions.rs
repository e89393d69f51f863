//! The conditions: what holds, why, and what will change it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::draft::{ConditionDraft, ConditionKind, Drafts, NOT_IN_SECRET, UNKNOWN_DIRECTIVES};
use super::kept::KeptFolders;
use super::{Facts, degraded, promotion, proofs, service, words};
use crate::model::roles::Primaries;
use crate::plan::reason::ApplyReason;
use crate::plan::{Promotion, Step, WaitReason};

/// Characters of a message; longer ones are cut (the API server's limit is 32,768, a reader's much less).
const LONGEST_MESSAGE: usize = 1024;

/// All of them, and `Ready`, which follows from them.
pub(crate) fn with_ready(
    drafts: Drafts,
    facts: Facts<'_>,
    primaries: &Primaries,
    old: &[Condition],
) -> Vec<ConditionDraft> {
    let ready = service::ready(facts, primaries, &drafts, old);
    let Drafts {
        accepted,
        memory_bounded,
        persisted,
        functions_loaded,
        users_in_place,
        settings_applied,
        highly_available,
        degraded,
        progressing,
    } = drafts;
    vec![
        accepted,
        memory_bounded,
        persisted,
        functions_loaded,
        users_in_place,
        settings_applied,
        highly_available,
        degraded,
        progressing,
        ready,
    ]
}

/// The conditions of an accepted layer but `Ready`.
/// `old`: the conditions before, with their times. `kept`: what the nodes keep aside.
pub(super) fn of(
    facts: Facts<'_>,
    primaries: &Primaries,
    kept: &KeptFolders,
    old: &[Condition],
    now: Timestamp,
) -> Drafts {
    let Facts { desired, observed, .. } = facts;
    let highly_available = highly_available(facts, primaries);
    Drafts {
        accepted: accepted(facts),
        memory_bounded: proven(
            ConditionKind::MemoryBounded,
            "Bounded",
            "NotBounded",
            "every data node's maxmemory is as planned",
            &proofs::memory(desired, observed),
        ),
        persisted: persisted(facts),
        functions_loaded: functions_loaded(facts, primaries),
        users_in_place: proven(
            ConditionKind::UsersInPlace,
            "InPlace",
            "NotInPlace",
            "every server has exactly the declared users",
            &[proofs::users(desired, observed), facts.subject.application_breaches.clone()].concat(),
        ),
        settings_applied: proven(
            ConditionKind::SettingsApplied,
            "Applied",
            "NotApplied",
            "every directive was read back as declared",
            &proofs::settings(desired, observed),
        ),
        degraded: degraded::of(facts, kept, &highly_available, old, now),
        highly_available,
        progressing: progressing(facts),
    }
}

/// An unknown directive is no fault: a newer engine may have it.
fn accepted(facts: Facts<'_>) -> ConditionDraft {
    let unknown = &facts.subject.unknown_directives;
    if unknown.is_empty() {
        return ConditionDraft::new(ConditionKind::Accepted, Some(true), "Valid", "the specification is valid");
    }
    let message = format!(
        "the specification is valid; this version does not know these directives of spec.config, and the engine does not start with one that it does not know either: {}",
        unknown.join(", ")
    );
    ConditionDraft::new(ConditionKind::Accepted, Some(true), UNKNOWN_DIRECTIVES, message)
}

fn proven(
    kind: ConditionKind,
    yes: &'static str,
    no: &'static str,
    sentence: &str,
    missing: &[String],
) -> ConditionDraft {
    if missing.is_empty() {
        ConditionDraft::new(kind, Some(true), yes, sentence.to_owned())
    } else {
        ConditionDraft::new(kind, Some(false), no, missing.join("; "))
    }
}

/// That the servers start without functions, should all of them end, takes nothing from what is loaded.
fn functions_loaded(facts: Facts<'_>, primaries: &Primaries) -> ConditionDraft {
    const KIND: ConditionKind = ConditionKind::FunctionsLoaded;
    let missing = proofs::functions(facts.desired, facts.observed, primaries);
    if missing.is_empty() && facts.subject.leaves_out_functions {
        let message = "the primary answers for every library; their sources are too long for the layer's Secret, so once all data \
                       nodes have lost their volumes the functions come back when the operator loads them";
        return ConditionDraft::new(KIND, Some(true), NOT_IN_SECRET, message);
    }
    proven(KIND, "Loaded", "NotLoaded", "the primary answers for every library", &missing)
}

fn persisted(facts: Facts<'_>) -> ConditionDraft {
    if facts.subject.keeps_data {
        let missing = proofs::persistence(facts.desired, facts.observed);
        proven(
            ConditionKind::Persisted,
            "Persisted",
            "NotPersisted",
            "every data node writes its files as declared",
            &missing,
        )
    } else {
        let message = "declared without persistence: the data is lost when all data pods are".to_owned();
        ConditionDraft::new(ConditionKind::Persisted, Some(false), "NotDeclared", message)
    }
}

fn highly_available(facts: Facts<'_>, primaries: &Primaries) -> ConditionDraft {
    if facts.desired.is_single_node() {
        let message = "mode Standalone is one node".to_owned();
        return ConditionDraft::new(ConditionKind::HighlyAvailable, Some(false), "SingleNode", message);
    }
    let missing = proofs::availability(facts.desired, facts.observed, primaries);
    proven(ConditionKind::HighlyAvailable, "Redundant", "NotRedundant", "any one node may be lost", &missing)
}

fn progressing(facts: Facts<'_>) -> ConditionDraft {
    let waits = words::together(facts, &facts.plan.waiting);
    let mut waiting: Vec<String> = waits.into_iter().map(|(_, told)| told).collect();
    waiting.extend(facts.plan.refused.iter().map(words::refused));
    // A layer that is new is marked as initialised first: a move that waits for that is no progress that the mark waits for.
    let held = facts.plan.promotion.as_ref().filter(|_| facts.observed.initialised);
    if let (Some(Promotion::Held(held)), Some(request)) = (held, &facts.subject.promote) {
        waiting.push(promotion::waits(facts, request, held));
    }
    let (holds, reason, message) = if facts.desired.paused {
        (false, "Paused", "spec.paused is set: nothing is changed".to_owned())
    } else if facts.plan.waiting.contains(&WaitReason::Approval) {
        (true, "AwaitsApproval", waiting.join("; "))
    } else if !waiting.is_empty() {
        (true, "Waiting", waiting.join("; "))
    } else if facts.plan.steps.iter().any(|step| !is_bookkeeping(step)) || !facts.undone.is_empty() {
        (true, "Changing", "steps are being carried out".to_owned())
    } else {
        (false, "AsDeclared", "nothing is left to do".to_owned())
    };
    ConditionDraft::new(ConditionKind::Progressing, Some(holds), reason, message)
}

/// Whether a step only records what already holds, or is about a user's library: the layer is whole all the while.
fn is_bookkeeping(step: &Step) -> bool {
    let records = matches!(
        step,
        Step::PatchConfig { .. }
            | Step::PointService { .. }
            | Step::LabelPod { .. }
            | Step::ApplyWorkload { reason: ApplyReason::Drift, .. }
    );
    records || step.is_of_users_library()
}

/// The conditions with their times: a time changes with the status and with nothing else.
pub(crate) fn timed(said: Vec<ConditionDraft>, generation: i64, old: &[Condition], now: Timestamp) -> Vec<Condition> {
    let word = |holds: Option<bool>| match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    said.into_iter()
        .map(|said| {
            let status = word(said.holds);
            let since = old.iter().find(|known| known.type_ == said.kind && known.status == status);
            Condition {
                type_: said.kind.name().to_owned(),
                status: status.to_owned(),
                reason: said.reason.into_owned(),
                message: said.message.chars().take(LONGEST_MESSAGE).collect(),
                observed_generation: Some(generation),
                last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
            }
        })
        .collect()
}
