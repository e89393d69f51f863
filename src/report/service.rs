//! `Ready` of a layer. Before it is said for the first time, everything that is declared is proven. From then on it speaks of service:
//! what is still to be done, and what was refused, is told by other conditions.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::{ConditionDraft, ConditionKind, Drafts, PROVEN, RECORDING, SERVING};
use super::{Facts, proofs, words};
use crate::model::NodeId;
use crate::model::cluster::Shard;
use crate::model::function_library::is_users_library;
use crate::model::observed::{DataServer, Replication};
use crate::model::roles::{Primaries, data, shards};

/// A word and a sentence.
type ReasonAndMessage = (Cow<'static, str>, String);

/// The condition. `old`: the conditions before.
pub(super) fn ready(facts: Facts<'_>, primaries: &Primaries, drafts: &Drafts, old: &[Condition]) -> ConditionDraft {
    let no =
        |(reason, message): ReasonAndMessage| ConditionDraft::new(ConditionKind::Ready, Some(false), reason, message);
    let served = facts.observed.initialised && facts.observed.recorded;
    let unproven = unproven(facts, primaries, drafts);
    if served && let Some(outage) = outage(facts, primaries, drafts, old) {
        return no(outage);
    }
    match unproven {
        None => ConditionDraft::new(
            ConditionKind::Ready,
            Some(true),
            PROVEN,
            "proven on the live servers for this generation",
        ),
        Some(_) if served => {
            let message = "the layer serves; the other conditions say what is not as declared";
            ConditionDraft::new(ConditionKind::Ready, Some(true), SERVING, message)
        }
        Some(why) => no(why),
    }
}

/// Why clients of a layer that was Ready before are not served.
fn outage(facts: Facts<'_>, primaries: &Primaries, drafts: &Drafts, old: &[Condition]) -> Option<ReasonAndMessage> {
    let of_shard = |shard: Shard| outage_of(facts, primaries.of(shard.node(0)), drafts, old);
    shards(facts.desired).into_iter().find_map(of_shard)
}

/// Why clients of one shard are not served.
fn outage_of(
    facts: Facts<'_>,
    primary: Option<NodeId>,
    drafts: &Drafts,
    old: &[Condition],
) -> Option<ReasonAndMessage> {
    let why = |reason: &'static str, message: String| Some((Cow::Borrowed(reason), message));
    let Some((node, server)) = primary.and_then(|node| Some((node, data(facts.observed, node)?))) else {
        // While it is moved as planned, both nodes hold it for a moment. A move that fails is over within seconds.
        let was_ready = old.iter().any(|known| known.type_ == ConditionKind::Ready && known.status == "True");
        return (!(facts.observed.handover && was_ready)).then(|| no_primary(facts, drafts));
    };
    if facts.subject.keeps_data && server.persistence_trouble.is_some() {
        return why("NotPersisted", format!("Persisted: {}", drafts.persisted.message));
    }
    if server.maxmemory == 0 && facts.desired.settings.contains_key("maxmemory") {
        return why("NotBounded", format!("{node} has no maxmemory"));
    }
    let libraries = facts.desired.libraries.keys().filter(|name| !is_users_library(name));
    let missing: Vec<&str> =
        libraries.filter(|name| !server.libraries.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        return why("NotLoaded", format!("{node} lacks the function library {}", missing.join(", ")));
    }
    if let Some(refusal) = refuses_writes(node, server) {
        return why("RefusesWrites", refusal);
    }
    let own = format!("{node}: ");
    let breaches: Vec<&str> =
        facts.subject.application_breaches.iter().filter(|it| it.starts_with(&own)).map(String::as_str).collect();
    if breaches.is_empty() { None } else { why("NotInPlace", format!("UsersInPlace: {}", breaches.join("; "))) }
}

/// Whether a primary has fewer replicas than it needs to take writes.
fn refuses_writes(node: NodeId, server: &DataServer) -> Option<String> {
    let least: usize = server.settings.get("min-replicas-to-write")?.parse().ok()?;
    let Replication::Primary { replicas } = &server.replication else { return None };
    let connected = replicas.len();
    (connected < least).then(|| {
        format!("{node} refuses writes: min-replicas-to-write is {least}, and {connected} replicas are connected")
    })
}

/// Without a primary, what keeps one away is the reason, where it is known.
fn no_primary(facts: Facts<'_>, drafts: &Drafts) -> ReasonAndMessage {
    let degraded = &drafts.degraded;
    let reason = if degraded.holds == Some(true) { degraded.reason.clone() } else { Cow::Borrowed("NoPrimary") };
    (reason, words::no_primary(facts))
}

/// What of everything that is declared is not proven, or not done; `None`: nothing.
fn unproven(facts: Facts<'_>, primaries: &Primaries, drafts: &Drafts) -> Option<ReasonAndMessage> {
    if shards(facts.desired).into_iter().any(|shard| primaries.of(shard.node(0)).is_none()) {
        return Some(no_primary(facts, drafts));
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
    if facts.desired.fails_over() {
        needed.push(highly_available);
    }
    if let Some(missing) = needed.into_iter().find(|draft| draft.holds != Some(true)) {
        return Some((missing.reason.clone(), format!("{}: {}", missing.kind, missing.message)));
    }
    let old = proofs::revisions(facts.desired, facts.observed);
    if !old.is_empty() {
        return Some((Cow::Borrowed("NotRolled"), format!("not yet of the declared revision: {}", old.join(", "))));
    }
    if progressing.holds == Some(true) {
        return Some((progressing.reason.clone(), progressing.message.clone()));
    }
    if !facts.observed.recorded && !facts.desired.paused {
        // From the moment it is Ready an application may write, and then no node may take the layer for new.
        let message = "everything is as declared; the layer's objects are being marked as initialised";
        return Some((Cow::Borrowed(RECORDING), message.to_owned()));
    }
    None
}
