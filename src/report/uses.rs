//! What is told of a use. Pure; `Ready` is said only of what this very pass of its layer saw.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::audit;
use super::conditions::timed;
use super::draft::{ConditionDraft, ConditionKind, PROVEN, SERVING};
pub use super::layer_words::{LayerCause, LayerNote};
use super::summary;
use crate::api::data_layer_status::BindingReference;
use crate::api::use_status::{
    Admission, CounterStatus, FunctionStatus, FunctionsStatus, InvalidationStatus, LayerReference, LimitStatus,
    RotationStatus, UseStatus,
};
use crate::model::UseKind;
use crate::model::audit::{AuditReport, MemoryBudget};
use crate::model::counters::{Row, in_steps};
use crate::model::function_library::Functions;
use crate::model::uses::Advice;

/// What is known of an accepted use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UseFacts {
    /// Kind of the custom resource.
    pub kind: UseKind,
    /// `metadata.generation`.
    pub generation: i64,
    /// Namespace and name of its layer.
    pub layer: (String, String),
    /// Why the layer itself cannot be worked with, if so.
    pub layer_trouble: Option<String>,
    /// What keeps changes from the layer, if anything does.
    pub layer_note: Option<LayerNote>,
    /// Whether the layer has a primary beyond doubt.
    pub has_primary: bool,
    /// Whether the primary answered for a library that holds its policy.
    pub functions_loaded: bool,
    /// Digest of an earlier policy of the use, if the primary has that library, as far as is known with that policy.
    pub earlier_policy: Option<String>,
    /// The primary, as `user_missing` names it.
    pub primary: Option<String>,
    /// That library, the policy's digest and the generation that it was made from.
    pub functions: FunctionsStatus,
    /// Servers that answer and do not have the user as wanted.
    pub user_missing: Vec<String>,
    /// Servers that do not answer.
    pub silent: Vec<String>,
    /// Those among them whose pods are ready: clients reach them, and nothing is known of their users.
    pub unreached: Vec<String>,
    /// Why the layer is not Ready, in its own words; `None`: it is.
    pub layer_cause: Option<LayerCause>,
    /// What `ACL DRYRUN` judges otherwise than it should; `None`: it was not asked yet.
    pub violations: Option<Vec<String>>,
    /// Name of the binding Secret, if it is as it should be.
    pub binding: Option<String>,
    /// Name of the Secret for a rate limit service, as far as there is one.
    pub export: Option<String>,
    /// Why one of the two is not.
    pub binding_trouble: Option<String>,
    /// Whether the binding's name belongs to another.
    pub name_taken: bool,
    /// User that the binding shows.
    pub user: Option<String>,
    /// What the API server said of a change of the dedicated layer that it did not take.
    pub change_refused: Option<String>,
    /// User whose credentials are still valid next to it.
    pub previous_user: Option<String>,
    /// Which rotations of its credentials are valid.
    pub rotation: Option<RotationStatus>,
    /// The place that it has; `None`: its layer was not accepted yet.
    pub admission: Option<Admission>,
    /// What it should know of its layer.
    pub advice: Option<Advice>,
    /// What the last whole pass over the layer's keys found; `None`: nothing new is known.
    pub audit: Option<Arc<AuditReport>>,
    /// The memory that its keys may take; `None`: as much as the layer has.
    pub budget: Option<MemoryBudget>,
    /// What each of its keys begins with; empty: it has none.
    pub prefix: String,
    /// Of a rate limit policy: what its limits come to.
    pub limits: Vec<LimitStatus>,
    /// What its functions counted, by part; `None`: that is not known now.
    pub counters: Option<Vec<Row>>,
    /// Of a cache: keys that are to be removed.
    pub invalidation: Option<InvalidationStatus>,
    /// Of a function library: the functions that the primary has of it; `None`: it has none, or there is no primary to ask.
    pub function_names: Option<Functions>,
    /// Of a function library: engine and version of that primary.
    pub engine: Option<String>,
    /// Of a function library: why what is declared is not loaded.
    pub library_trouble: Option<LibraryTrouble>,
}

/// Why the declared source of a function library is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryTrouble {
    /// One word; part of the API.
    pub reason: &'static str,
    /// A sentence; the server's own words, where it gave some.
    pub message: String,
}

fn condition(
    kind: ConditionKind,
    holds: Option<bool>,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> ConditionDraft {
    ConditionDraft::new(kind, holds, reason, message)
}

/// The status of an accepted use.
pub fn status(facts: &UseFacts, old: &UseStatus, now: Timestamp) -> UseStatus {
    // One whose binding was written before keeps its user: what is taken is the name only.
    if facts.name_taken && facts.binding.is_none() && facts.rotation.is_none() {
        let why = facts.binding_trouble.clone().unwrap_or_default();
        return refused(facts.kind, facts.generation, "NameTaken", &why, Some(layer(facts)), old, now);
    }
    let accepted = match &facts.layer_trouble {
        None if facts.name_taken => {
            condition(ConditionKind::Accepted, Some(false), "NameTaken", binding(facts).message)
        }
        None => condition(ConditionKind::Accepted, Some(true), "Valid", format!("accepted by layer {}", path(facts))),
        Some(trouble) => condition(ConditionKind::Accepted, None, "LayerNotAccepted", trouble.clone()),
    };
    let accepted = match &facts.library_trouble {
        // Memory that is full passes; a source that is refused has to be changed.
        Some(trouble) if accepted.holds == Some(true) && trouble.reason != "LoadFailed" => {
            condition(ConditionKind::Accepted, Some(false), trouble.reason, with_what_stays(trouble, facts))
        }
        Some(_) | None => accepted,
    };
    let mut conditions = vec![accepted, functions(facts)];
    if facts.kind.has_user() {
        conditions.extend([user(facts), access(facts), binding(facts)]);
    }
    let was_ready = old.conditions.iter().any(|known| known.type_ == ConditionKind::Ready && known.status == "True");
    let was_degraded =
        old.conditions.iter().any(|known| known.type_ == ConditionKind::Degraded && known.status == "True");
    let was_served = was_ready || was_degraded;
    let ready = ready(facts, &conditions, was_ready, was_served);
    let is_ready = ready.holds == Some(true);
    let is_refused = conditions.iter().any(|it| it.kind == ConditionKind::Accepted && it.holds == Some(false));
    conditions.push(if is_refused {
        condition(ConditionKind::Progressing, Some(false), "NotAccepted", "nothing is done until that changes")
    } else {
        progressing(facts, &ready)
    });
    // A use that was never Ready is not degraded by what is still on its way.
    conditions.push(if let Some(words) = &facts.change_refused {
        condition(ConditionKind::Degraded, Some(true), "LayerRefused", words.clone())
    } else if !is_ready && was_served {
        condition(ConditionKind::Degraded, Some(true), ready.reason.clone(), ready.message.clone())
    } else {
        condition(ConditionKind::Degraded, Some(false), "AsDeclared", "nothing is wrong")
    });
    if facts.kind.has_user() {
        conditions.push(eviction(facts));
    }
    conditions.push(ready);
    let (state, message) = finish(&mut conditions, old, now);
    // A library that was lost is loaded again: until then the users keep their rights.
    let function_names = facts.function_names.as_ref().map_or_else(|| old.function_names.clone(), listed);
    UseStatus {
        state,
        message,
        names: names(&facts.limits, &function_names),
        observed_generation: Some(facts.generation),
        conditions: timed(conditions, facts.generation, &old.conditions, now),
        layer: Some(layer(facts)),
        binding: facts.binding.clone().map(|name| BindingReference { name }),
        export: facts.export.clone().map(|name| BindingReference { name }),
        functions: facts.functions_loaded.then(|| facts.functions.clone()).or_else(|| old.functions.clone()),
        user: facts.user.clone(),
        rotation: facts.rotation.clone(),
        admission: facts.admission.clone().or_else(|| old.admission.clone()),
        audit: audit::of_use(facts.audit.as_deref(), &facts.prefix, old.audit.as_ref())
            .filter(|_| facts.kind.has_user()),
        budget: audit::of_budget(facts.budget, facts.audit.as_deref(), &facts.prefix, old.budget.as_ref()),
        limits: facts.limits.clone(),
        counters: facts.counters.as_ref().map_or_else(|| old.counters.clone(), |rows| counters(facts.kind, rows)),
        hit_ratio: facts.counters.as_ref().map_or(old.hit_ratio, |rows| hit_ratio(facts.kind, rows, old.hit_ratio)),
        invalidation: facts.invalidation.clone(),
        function_names,
        engine: facts.engine.clone().or_else(|| old.engine.clone()),
    }
}

/// Names that `kubectl get` has room for.
const MOST_NAMES: usize = 3;

/// What `kubectl get` shows of limits and functions: a column has one string. `None`: there are none.
fn names(limits: &[LimitStatus], functions: &[FunctionStatus]) -> Option<String> {
    let all: Vec<&str> =
        limits.iter().map(|it| it.name.as_str()).chain(functions.iter().map(|it| it.name.as_str())).collect();
    let shown = all.get(..MOST_NAMES).unwrap_or(&all).join(", ");
    let further = all.len().saturating_sub(MOST_NAMES);
    match further {
        0 if all.is_empty() => None,
        0 => Some(shown),
        _ => Some(format!("{shown} and {further} more")),
    }
}

/// Adds what `kstatus` waits for; answers what `kubectl get` shows.
fn finish(conditions: &mut Vec<ConditionDraft>, old: &UseStatus, now: Timestamp) -> (Option<String>, Option<String>) {
    conditions.extend(summary::for_waiters(conditions, &old.conditions, now));
    let (state, message) = summary::of(conditions);
    (Some(state), Some(message))
}

fn progressing(facts: &UseFacts, ready: &ConditionDraft) -> ConditionDraft {
    let kind = ConditionKind::Progressing;
    let note = facts.layer_note.as_ref().map(|note| (note.reason(), note.sentence(&path(facts))));
    if ready.holds != Some(true) {
        // Nothing is under way in a layer that is paused.
        return match note {
            Some((reason, sentence)) if facts.layer_note == Some(LayerNote::Paused) => {
                condition(kind, Some(false), reason, sentence)
            }
            Some(_) | None => condition(kind, Some(true), ready.reason.clone(), ready.message.clone()),
        };
    }
    if let Some(previous) = &facts.previous_user {
        let message = format!("{previous} stays valid until no client is connected with it, or its grace is over");
        return condition(kind, Some(true), "Rotating", message);
    }
    if let Some((reason, sentence)) = note {
        return condition(kind, Some(false), reason, sentence);
    }
    if ready.reason == SERVING {
        return condition(kind, Some(true), "Changing", ready.message.clone());
    }
    condition(kind, Some(false), "AsDeclared", "nothing is left to do")
}

/// Rows of counters in the words of their kind.
fn counters(kind: UseKind, rows: &[Row]) -> Vec<CounterStatus> {
    let Some(columns) = kind.words().counters else { return Vec::new() };
    let number = |count: &u64| i64::try_from(in_steps(*count)).unwrap_or(i64::MAX);
    let row = |row: &Row| CounterStatus {
        name: columns.part.map(|_| row.part.clone()),
        counts: columns.names.iter().map(|(name, _)| (*name).to_owned()).zip(row.counts.iter().map(number)).collect(),
    };
    rows.iter().map(row).collect()
}

/// How far the ratio of hits may be off before it is told again, percent.
const RATIO_STAYS: i32 = 5;

/// Reads that found something, percent of all; `None`: the kind has none, or nothing was read. `old` while that is about
/// right.
fn hit_ratio(kind: UseKind, rows: &[Row], old: Option<i32>) -> Option<i32> {
    let columns = kind.words().counters?;
    let reads = columns.reads?;
    let sum = |counted: &[&str]| -> u128 {
        let is_counted = |at: usize| columns.names.get(at).is_some_and(|(name, _)| counted.contains(name));
        let of_row = |row: &Row| -> u128 {
            row.counts.iter().enumerate().filter(|(at, _)| is_counted(*at)).map(|(_, count)| u128::from(*count)).sum()
        };
        rows.iter().map(of_row).sum()
    };
    let (found, absent) = (sum(reads.found), sum(reads.absent));
    let told = i32::try_from((found * 100).checked_div(found + absent)?).ok()?;
    Some(old.filter(|old| old.abs_diff(told) < RATIO_STAYS.unsigned_abs()).unwrap_or(told))
}

fn listed(functions: &Functions) -> Vec<FunctionStatus> {
    functions.iter().map(|(name, reads_only)| FunctionStatus { name: name.clone(), reads_only: *reads_only }).collect()
}

/// Why a library is not loaded, and what of it is.
fn with_what_stays(trouble: &LibraryTrouble, facts: &UseFacts) -> String {
    let message = &trouble.message;
    match &facts.function_names {
        Some(functions) => {
            let names: Vec<&str> = functions.keys().map(String::as_str).collect();
            format!("{message}; the version that was loaded before stays, with {}", names.join(", "))
        }
        None => format!("{message}; no version of it is loaded"),
    }
}

fn layer(facts: &UseFacts) -> LayerReference {
    let (namespace, name) = &facts.layer;
    LayerReference::new(namespace, name)
}

/// `NAMESPACE/NAME` of the layer.
fn path(facts: &UseFacts) -> String {
    layer(facts).path
}

fn functions(facts: &UseFacts) -> ConditionDraft {
    let kind = ConditionKind::FunctionsLoaded;
    if let Some(trouble) = &facts.library_trouble {
        return condition(kind, Some(false), trouble.reason, with_what_stays(trouble, facts));
    }
    if facts.functions_loaded {
        condition(kind, Some(true), "Loaded", "the primary answers for a library that holds this policy")
    } else if facts.has_primary && facts.layer_note == Some(LayerNote::Paused) {
        let message = LayerNote::Paused.sentence(&path(facts));
        condition(kind, Some(false), LayerNote::Paused.reason(), message)
    } else if facts.has_primary {
        condition(
            kind,
            Some(false),
            "NotLoaded",
            "the primary does not answer yet for a library that holds this policy",
        )
    } else {
        condition(kind, None, "NoPrimary", "there is no primary to ask")
    }
}

fn user(facts: &UseFacts) -> ConditionDraft {
    let missing = facts.user_missing.iter().map(|node| format!("{node} does not have the user as declared"));
    let silent = facts.silent.iter().map(|node| format!("{node} does not answer"));
    let why: Vec<String> = missing.chain(silent).collect();
    if why.is_empty() {
        condition(ConditionKind::UserInPlace, Some(true), "InPlace", "every server has exactly the declared user")
    } else {
        condition(ConditionKind::UserInPlace, Some(false), "NotInPlace", why.join("; "))
    }
}

fn access(facts: &UseFacts) -> ConditionDraft {
    let kind = ConditionKind::AccessProven;
    match &facts.violations {
        None => condition(kind, None, "NotAsked", "the primary was not asked yet what the user may do"),
        Some(violations) if violations.is_empty() => condition(
            kind,
            Some(true),
            "Proven",
            format!("ACL DRYRUN on the primary allows what the {} needs and refuses the rest", facts.kind.words().noun),
        ),
        Some(violations) => condition(kind, Some(false), "Breached", format!("the user {}", violations.join("; "))),
    }
}

/// Whether the layer's eviction policy suits the use. It is served either way.
fn eviction(facts: &UseFacts) -> ConditionDraft {
    let kind = ConditionKind::EvictionSuits;
    match (&facts.layer_trouble, &facts.advice) {
        (Some(trouble), _) => condition(kind, None, "LayerNotAccepted", trouble.clone()),
        (None, Some(advice)) => condition(kind, Some(false), advice.reason, advice.message.clone()),
        (None, None) => {
            condition(kind, Some(true), "Suits", "when memory is full, the layer's eviction policy does what it should")
        }
    }
}

fn binding(facts: &UseFacts) -> ConditionDraft {
    match (&facts.binding, &facts.binding_trouble) {
        (Some(name), Some(why)) if facts.name_taken => condition(
            ConditionKind::BindingWritten,
            Some(false),
            "NameTaken",
            format!("{why}; the binding stays in Secret {name}"),
        ),
        (None, Some(why)) if facts.name_taken => {
            let message = format!("{why}; the credentials that the binding showed stay valid");
            condition(ConditionKind::BindingWritten, Some(false), "NameTaken", message)
        }
        (_, Some(why)) => condition(ConditionKind::BindingWritten, Some(false), "NotWritten", why),
        (Some(name), None) => condition(ConditionKind::BindingWritten, Some(true), "Written", format!("Secret {name}")),
        (None, None) => condition(
            ConditionKind::BindingWritten,
            Some(false),
            "NotWritten",
            "it is written once its user is in place",
        ),
    }
}

/// `was_ready`: whether it was before. One that serves by an earlier policy, or whose user only other nodes lack, goes on to.
/// `was_served`: whether it was Ready once, and is Degraded since.
fn ready(facts: &UseFacts, conditions: &[ConditionDraft], was_ready: bool, was_served: bool) -> ConditionDraft {
    let no = |reason: Cow<'static, str>, message: String| condition(ConditionKind::Ready, Some(false), reason, message);
    if let Some(trouble) = &facts.layer_trouble {
        return no("LayerNotAccepted".into(), trouble.clone());
    }
    if !facts.has_primary {
        return match &facts.layer_cause {
            Some(cause) => {
                no(cause.reason.clone().into(), format!("layer {} is not Ready: {}", path(facts), cause.message))
            }
            None => no("NoPrimary".into(), format!("layer {} has no primary now", path(facts))),
        };
    }
    // A server that is away has the user when it is back, from its file: those who use the others are not to wait for it. One that clients
    // reach and we do not may lack a user that is new.
    let only_unreachable_nodes_lack_it = facts.user_missing.is_empty() && (was_served || facts.unreached.is_empty());
    let mut missing = conditions.iter().filter(|it| {
        it.holds != Some(true) && !(it.kind == ConditionKind::UserInPlace && only_unreachable_nodes_lack_it)
    });
    let serves_without = |it: &ConditionDraft| match it.kind {
        ConditionKind::FunctionsLoaded | ConditionKind::Accepted => facts.earlier_policy.is_some(),
        ConditionKind::BindingWritten => facts.binding.is_some(),
        ConditionKind::UserInPlace => {
            facts.primary.as_ref().is_some_and(|primary| !facts.user_missing.contains(primary))
        }
        _ => false,
    };
    let (Some(first), stays) = (missing.clone().next(), missing.all(serves_without)) else {
        // Once an application may write, no node may take the layer for new.
        return match facts.layer_cause.as_ref().filter(|cause| cause.is_new && !was_served) {
            Some(cause) => {
                let reason = if cause.is_trouble { cause.reason.clone().into() } else { "LayerPending".into() };
                no(reason, format!("layer {} is not Ready yet: {}", path(facts), cause.message))
            }
            None => {
                condition(ConditionKind::Ready, Some(true), PROVEN, "proven on the live servers for this generation")
            }
        };
    };
    let message = format!("{}: {}", first.kind, first.message);
    if stays && was_ready {
        return condition(ConditionKind::Ready, Some(true), SERVING, format!("it is served as before; {message}"));
    }
    no(first.reason.clone(), message)
}

/// The status of a use that its layer does not serve.
pub fn refused(
    kind: UseKind,
    generation: i64,
    reason: &'static str,
    message: &str,
    layer: Option<LayerReference>,
    old: &UseStatus,
    now: Timestamp,
) -> UseStatus {
    let was_served = old.conditions.iter().any(|known| {
        known.status == "True"
            && (known.type_ == ConditionKind::Ready
                || (known.type_ == ConditionKind::Degraded && known.reason == "NotAccepted"))
    });
    let degraded = if was_served {
        let message = match reason {
            "LayerNotFound" if !kind.has_user() => format!("it was served before; its layer is gone: {message}"),
            "LayerNotFound" => format!("it was served before; its layer is gone and its binding is removed: {message}"),
            _ if !kind.has_user() => format!("it was served before; its functions are removed: {message}"),
            _ => format!(
                "it was served before; its user and binding are removed, its keys stay until their TTL: {message}"
            ),
        };
        condition(ConditionKind::Degraded, Some(true), "NotAccepted", message)
    } else {
        condition(ConditionKind::Degraded, Some(false), "AsDeclared", "it was never served")
    };
    let mut conditions = vec![
        condition(ConditionKind::Accepted, Some(false), reason, message),
        condition(ConditionKind::Ready, Some(false), "NotAccepted", message),
        condition(ConditionKind::Progressing, Some(false), "NotAccepted", "nothing is done until that changes"),
        degraded,
    ];
    let (state, message) = finish(&mut conditions, old, now);
    UseStatus {
        state,
        message,
        observed_generation: Some(generation),
        conditions: timed(conditions, generation, &old.conditions, now),
        layer,
        // A use that loses its leave has no place to come back to; all other obstacles pass.
        admission: old.admission.clone().filter(|_| reason != "NotAllowed"),
        ..UseStatus::default()
    }
}

/// The status of a use whose dedicated layer is being made.
pub fn pending(kind: UseKind, generation: i64, layer: LayerReference, old: &UseStatus, now: Timestamp) -> UseStatus {
    let message = "its layer is being made";
    let mut conditions = vec![
        condition(
            ConditionKind::Accepted,
            Some(true),
            "Valid",
            format!("the layer is of the {}'s own", kind.words().noun),
        ),
        condition(ConditionKind::Ready, Some(false), "LayerPending", message),
        condition(ConditionKind::Progressing, Some(true), "LayerPending", message),
        condition(ConditionKind::Degraded, Some(false), "AsDeclared", "nothing is wrong"),
    ];
    let (state, message) = finish(&mut conditions, old, now);
    UseStatus {
        state,
        message,
        observed_generation: Some(generation),
        conditions: timed(conditions, generation, &old.conditions, now),
        layer: Some(layer),
        rotation: old.rotation.clone(),
        admission: old.admission.clone(),
        ..UseStatus::default()
    }
}
