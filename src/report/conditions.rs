//! The conditions: what holds, why, and what will change it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::{Facts, proofs};
use crate::model::observed::Observed;
use crate::model::{Mode, NodeId};
use crate::plan::form::ABSENT_SECONDS;
use crate::plan::reason::ApplyReason;
use crate::plan::{Refused, Step, Waiting};

/// Characters of a message; longer ones are cut (the API server's limit is 32,768, a reader's much less).
const LONGEST_MESSAGE: usize = 1024;

/// The reason of `Degraded` while a node waits for what only a person ends.
pub const NEEDS_PERSON: &str = "NeedsPerson";

/// The reason of `Ready=False` while only the record is missing that the layer was initialised.
pub const RECORDING: &str = "Recording";

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionDraft {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds; `None`: unknown.
    pub holds: Option<bool>,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// The conditions of an accepted layer, each by itself.
#[derive(Clone, Debug)]
pub struct Drafts {
    accepted: ConditionDraft,
    pub(super) memory_bounded: ConditionDraft,
    pub(super) persisted: ConditionDraft,
    pub(super) functions_loaded: ConditionDraft,
    users_in_place: ConditionDraft,
    settings_applied: ConditionDraft,
    pub(super) highly_available: ConditionDraft,
    degraded: ConditionDraft,
    progressing: ConditionDraft,
}

impl Drafts {
    /// All of them, and `Ready`, which follows from them.
    pub fn with_ready(self, facts: Facts<'_>, primary: Option<NodeId>) -> Vec<ConditionDraft> {
        let ready = ready(facts, primary, &self);
        let Self {
            accepted,
            memory_bounded,
            persisted,
            functions_loaded,
            users_in_place,
            settings_applied,
            highly_available,
            degraded,
            progressing,
        } = self;
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
}

/// The conditions of an accepted layer but `Ready`.
pub fn of(facts: Facts<'_>, primary: Option<NodeId>) -> Drafts {
    let Facts { desired, observed, .. } = facts;
    Drafts {
        accepted: ConditionDraft {
            kind: "Accepted",
            holds: Some(true),
            reason: "Valid",
            message: "the specification is valid".to_owned(),
        },
        memory_bounded: proven(
            "MemoryBounded",
            "Bounded",
            "NotBounded",
            "every data node's maxmemory is as planned",
            &proofs::memory(desired, observed),
        ),
        persisted: persisted(facts),
        functions_loaded: proven(
            "FunctionsLoaded",
            "Loaded",
            "NotLoaded",
            "the primary answers for every library",
            &proofs::functions(desired, observed, primary),
        ),
        users_in_place: proven(
            "UsersInPlace",
            "InPlace",
            "NotInPlace",
            "every server has exactly the declared users",
            &[proofs::users(desired, observed), facts.subject.application_breaches.clone()].concat(),
        ),
        settings_applied: proven(
            "SettingsApplied",
            "Applied",
            "NotApplied",
            "every directive was read back as declared",
            &proofs::settings(desired, observed),
        ),
        highly_available: highly_available(facts, primary),
        degraded: degraded(facts),
        progressing: progressing(facts),
    }
}

fn proven(
    kind: &'static str,
    yes: &'static str,
    no: &'static str,
    sentence: &str,
    missing: &[String],
) -> ConditionDraft {
    if missing.is_empty() {
        ConditionDraft { kind, holds: Some(true), reason: yes, message: sentence.to_owned() }
    } else {
        ConditionDraft { kind, holds: Some(false), reason: no, message: missing.join("; ") }
    }
}

fn persisted(facts: Facts<'_>) -> ConditionDraft {
    if facts.subject.keeps_data {
        let missing = proofs::persistence(facts.desired, facts.observed);
        proven("Persisted", "Persisted", "NotPersisted", "every data node writes its files as declared", &missing)
    } else {
        let message = "declared without persistence: the data is lost when all data pods are".to_owned();
        ConditionDraft { kind: "Persisted", holds: Some(false), reason: "NotDeclared", message }
    }
}

fn highly_available(facts: Facts<'_>, primary: Option<NodeId>) -> ConditionDraft {
    if facts.desired.mode == Mode::Standalone {
        let message = "mode Standalone is one node".to_owned();
        return ConditionDraft { kind: "HighlyAvailable", holds: Some(false), reason: "SingleNode", message };
    }
    let missing = proofs::availability(facts.desired, facts.observed, primary);
    proven("HighlyAvailable", "Redundant", "NotRedundant", "any one node may be lost", &missing)
}

fn degraded(facts: Facts<'_>) -> ConditionDraft {
    // First, and in a new layer as well: nothing else ends it.
    let mut why = facts.waits.to_vec();
    why.extend(facts.plan.refused.iter().map(refused));
    why.extend(facts.undone.iter().filter(|undone| !undone.passes).map(|undone| undone.why.clone()));
    let troubled = facts.plan.waiting.iter().filter(|what| is_trouble(facts.observed, what));
    why.extend(troubled.map(|what| waiting(facts.desired.mode, what)));
    // A layer that was never Ready is not degraded by what is still on its way.
    if facts.observed.initialised {
        if facts.subject.keeps_data {
            why.extend(proofs::files(facts.observed));
        }
        why.extend(proofs::crowded(facts.desired, facts.observed));
        why.extend(proofs::tilted(facts.desired, facts.observed));
        why.extend(facts.faults.iter().cloned());
    }
    if why.is_empty() {
        return ConditionDraft {
            kind: "Degraded",
            holds: Some(false),
            reason: "AsDeclared",
            message: "nothing is wrong".to_owned(),
        };
    }
    let reason = if facts.waits.is_empty() { "Trouble" } else { NEEDS_PERSON };
    ConditionDraft { kind: "Degraded", holds: Some(true), reason, message: why.join("; ") }
}

fn progressing(facts: Facts<'_>) -> ConditionDraft {
    let waiting: Vec<String> = facts.plan.waiting.iter().map(|what| waiting(facts.desired.mode, what)).collect();
    let (holds, reason, message) = if facts.desired.paused {
        (false, "Paused", "spec.paused is set: nothing is changed".to_owned())
    } else if !waiting.is_empty() {
        (true, "Waiting", waiting.join("; "))
    } else if facts.plan.steps.iter().any(|step| !is_bookkeeping(step)) || !facts.undone.is_empty() {
        (true, "Changing", "steps are being carried out".to_owned())
    } else {
        (false, "AsDeclared", "nothing is left to do".to_owned())
    };
    ConditionDraft { kind: "Progressing", holds: Some(holds), reason, message }
}

fn ready(facts: Facts<'_>, primary: Option<NodeId>, drafts: &Drafts) -> ConditionDraft {
    let no = |reason, message: String| ConditionDraft { kind: "Ready", holds: Some(false), reason, message };
    if primary.is_none() {
        return no("NoPrimary", no_primary(facts));
    }
    // A condition that is new here is either needed or not: there is no third.
    let Drafts {
        accepted: _,
        memory_bounded,
        persisted,
        functions_loaded,
        users_in_place,
        settings_applied,
        highly_available,
        degraded: _,
        progressing,
    } = drafts;
    let mut needed = vec![memory_bounded, functions_loaded, users_in_place, settings_applied];
    if facts.subject.keeps_data {
        needed.push(persisted);
    }
    if facts.desired.mode == Mode::Sentinel {
        needed.push(highly_available);
    }
    if let Some(missing) = needed.into_iter().find(|draft| draft.holds != Some(true)) {
        return no(missing.reason, format!("{}: {}", missing.kind, missing.message));
    }
    let old = proofs::revisions(facts.desired, facts.observed);
    if !old.is_empty() {
        return no("NotRolled", format!("not yet of the declared revision: {}", old.join(", ")));
    }
    if progressing.holds == Some(true) {
        return no(progressing.reason, progressing.message.clone());
    }
    if !facts.observed.recorded && !facts.desired.paused {
        // From the moment it is Ready an application may write, and then no node may take the layer for new.
        return no(
            RECORDING,
            "everything is as declared; the layer's objects are being marked as initialised".to_owned(),
        );
    }
    let message = "proven on the live servers for this generation".to_owned();
    ConditionDraft { kind: "Ready", holds: Some(true), reason: "Proven", message }
}

/// Whether a step only records what already holds, or is about a user's library: the layer is whole all the while.
fn is_bookkeeping(step: &Step) -> bool {
    let records = matches!(
        step,
        Step::PatchConfig { .. }
            | Step::PointService { .. }
            | Step::LabelReads { .. }
            | Step::ApplyWorkload { reason: ApplyReason::Drift, .. }
    );
    records || step.is_of_users_library()
}

/// Why no node serves: what is waited for, as far as it is more than the missing primary.
fn no_primary(facts: Facts<'_>) -> String {
    let mode = facts.desired.mode;
    let waits = facts.plan.waiting.iter().filter(|what| !matches!(what, Waiting::Primary));
    let because: Vec<String> = waits.map(|what| waiting(mode, what)).collect();
    let fact = match mode {
        Mode::Standalone => "the data node is no primary by its own word",
        Mode::Sentinel => "no data node is primary by its own word and that of most Sentinels",
    };
    if because.is_empty() { fact.to_owned() } else { format!("{fact}: {}", because.join("; ")) }
}

/// A wait as a sentence.
fn waiting(mode: Mode, what: &Waiting) -> String {
    match what {
        Waiting::Gathering => "changes of function libraries are being gathered".to_owned(),
        Waiting::Address { node } => format!("{node} has no address yet"),
        Waiting::Pod { node, trouble: None } => format!("the pod of {node} does not run yet"),
        Waiting::Pod { node, trouble: Some(words) } => format!("the pod of {node} does not run: {words}"),
        Waiting::Server { node } => format!("the server of {node} does not answer"),
        Waiting::NotReady { node } => format!("the pod of {node} is not ready"),
        Waiting::Loading { node } => format!("{node} is loading its data"),
        Waiting::Sync { node } => format!("{node} is not in sync yet"),
        Waiting::Primary if mode == Mode::Standalone => "the data node does not serve as a primary yet".to_owned(),
        Waiting::Primary => "most Sentinels do not agree on a primary yet".to_owned(),
        Waiting::SentinelView { node } => format!("{node} does not know all others yet"),
        Waiting::Forgetting { node } => format!("{node} remembers an address that no node has any more"),
        Waiting::Termination { node } => format!("the pod of {node} is being deleted"),
        Waiting::Removal { node, because: None } => format!("{node} is being removed"),
        Waiting::Removal { node, because: Some(why) } => {
            format!("{node} is to be removed, but not yet: {}", refused(why))
        }
        Waiting::Failover => "a failover is under way".to_owned(),
        Waiting::Handover => "the primary is being moved".to_owned(),
        Waiting::Approval => {
            "a restart waits for the annotation redoubt.dev/approved-generation to name this generation".to_owned()
        }
        Waiting::Paused => "spec.paused is set".to_owned(),
    }
}

/// How long a node that we restarted ourselves may be away before that is trouble, seconds.
const PLANNED_SECONDS: u64 = 60;

/// Whether a wait means trouble: a node that served is away and we did not take it away just now, or Kubernetes says that it
/// cannot start a node's pod. In a layer that was never Ready the first is only a matter of time, and so is the second for a while.
fn is_trouble(observed: &Observed, what: &Waiting) -> bool {
    let away = |node: &NodeId| observed.nodes.get(node).and_then(|seen| seen.away.clone()).unwrap_or_default();
    let is_unplanned =
        |node: &NodeId| observed.initialised && !(away(node).planned && away(node).seconds < PLANNED_SECONDS);
    match what {
        Waiting::Pod { node, trouble: Some(_) } => observed.initialised || away(node).seconds >= ABSENT_SECONDS,
        Waiting::Pod { node, trouble: None }
        | Waiting::Server { node }
        | Waiting::NotReady { node }
        | Waiting::Termination { node } => is_unplanned(node),
        // How long it takes depends on the data.
        Waiting::Loading { node } => observed.initialised && !away(node).planned,
        Waiting::Primary => observed.initialised,
        Waiting::Gathering
        | Waiting::Address { .. }
        | Waiting::Sync { .. }
        | Waiting::SentinelView { .. }
        | Waiting::Forgetting { .. }
        | Waiting::Removal { .. }
        | Waiting::Failover
        | Waiting::Handover
        | Waiting::Approval
        | Waiting::Paused => false,
    }
}

/// Bytes in steps that a status may show: it rests while the data changes a little.
const fn at_rest(bytes: u64) -> u64 {
    const STEP: u64 = 16 << 20;
    if bytes < STEP { bytes } else { bytes / STEP * STEP }
}

/// A refusal as a sentence.
fn refused(refused: &Refused) -> String {
    match refused {
        Refused::NoInSyncReplica { node } => {
            format!("the primary {node} is not stopped: no replica is in sync and may take over")
        }
        Refused::NotInSync { node, behind } => format!("{node} is not disturbed while {behind} is not in sync"),
        Refused::NoSentinelMajority { node } => {
            format!("{node} is not disturbed: too few Sentinels of those that are remembered would be left")
        }
        Refused::AnotherNodeIsDown { node, down } => format!("{node} is not restarted while {down} is down"),
        Refused::Electing { node } => format!("{node} is not changed: it is in the middle of a failover"),
        Refused::OlderEngine { node, running, wanted } => format!(
            "{node} is not changed: {wanted} cannot read the files of {running}, which runs; name an image of that version or a later one in engine.image"
        ),
        Refused::MemoryBelowData { node, held, maxmemory } => format!(
            "{node} is not changed: maxmemory would be {}Mi, and the primary holds {}Mi or more; raise memory.limit, or delete data first",
            maxmemory >> 20,
            at_rest(*held) >> 20
        ),
        Refused::Unknown { node, about } => format!("{node} is not changed: nothing is known of {about}"),
    }
}

/// The conditions with their times: a time changes with the status and with nothing else.
pub fn timed(said: Vec<ConditionDraft>, generation: i64, old: &[Condition], now: Timestamp) -> Vec<Condition> {
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
                type_: said.kind.to_owned(),
                status: status.to_owned(),
                reason: said.reason.to_owned(),
                message: said.message.chars().take(LONGEST_MESSAGE).collect(),
                observed_generation: Some(generation),
                last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
            }
        })
        .collect()
}
