//! The conditions of a use that its layer accepted, each by itself.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::draft::{ConditionDraft, ConditionKind, PROVEN, SERVING};
use super::super::layer_words::LayerNote;
use super::facts::{LibraryTrouble, UseFacts};

pub(super) fn condition(
    kind: ConditionKind,
    holds: Option<bool>,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> ConditionDraft {
    ConditionDraft::new(kind, holds, reason, message)
}

/// All conditions of an accepted use. `old`: as they were told last.
pub(super) fn of_accepted(facts: &UseFacts, old: &[Condition]) -> Vec<ConditionDraft> {
    let mut conditions = vec![accepted(facts), functions(facts)];
    if facts.kind.has_user() {
        conditions.extend([user(facts), access(facts), binding(facts)]);
    }
    let was_ready = old.iter().any(|known| known.type_ == ConditionKind::Ready && known.status == "True");
    let was_degraded = old.iter().any(|known| known.type_ == ConditionKind::Degraded && known.status == "True");
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
    conditions
}

fn accepted(facts: &UseFacts) -> ConditionDraft {
    let accepted = match &facts.layer_trouble {
        None if facts.name_taken => {
            condition(ConditionKind::Accepted, Some(false), "NameTaken", binding(facts).message)
        }
        None => {
            condition(ConditionKind::Accepted, Some(true), "Valid", format!("accepted by layer {}", facts.layer_path()))
        }
        Some(trouble) => condition(ConditionKind::Accepted, None, "LayerNotAccepted", trouble.clone()),
    };
    match &facts.library_trouble {
        // Memory that is full passes, as does a pause; a source that is refused has to be changed.
        Some(trouble) if accepted.holds == Some(true) && !matches!(trouble.reason, "LoadFailed" | "LoadWaits") => {
            condition(ConditionKind::Accepted, Some(false), trouble.reason, with_what_stays(trouble, facts))
        }
        Some(_) | None => accepted,
    }
}

fn functions(facts: &UseFacts) -> ConditionDraft {
    let kind = ConditionKind::FunctionsLoaded;
    if let Some(trouble) = &facts.library_trouble {
        return condition(kind, Some(false), trouble.reason, with_what_stays(trouble, facts));
    }
    if facts.functions_loaded {
        condition(kind, Some(true), "Loaded", "the primary answers for a library that holds this policy")
    } else if facts.has_primary && facts.layer_note == Some(LayerNote::Paused) {
        let message = LayerNote::Paused.sentence(&facts.layer_path());
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
                no(cause.reason.clone().into(), format!("layer {} is not Ready: {}", facts.layer_path(), cause.message))
            }
            None => no("NoPrimary".into(), format!("layer {} has no primary now", facts.layer_path())),
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
                no(reason, format!("layer {} is not Ready yet: {}", facts.layer_path(), cause.message))
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

fn progressing(facts: &UseFacts, ready: &ConditionDraft) -> ConditionDraft {
    let kind = ConditionKind::Progressing;
    let note = facts.layer_note.as_ref().map(|note| (note.reason(), note.sentence(&facts.layer_path())));
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
