//! `Degraded`: what does not end by waiting, with the cause itself as reason and text.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::draft::{ConditionDraft, ConditionKind, NEEDS_PERSON};
use super::facts::NOT_PROVEN_YET;
use super::kept::{DATA_KEPT_ASIDE, KeptFolders};
use super::{Facts, kept, proofs, words};
use crate::model::NodeId;
use crate::model::cluster::Shard;
use crate::model::observed::{Observed, UnavailableNode};
use crate::plan::form::ABSENT_SECONDS;
use crate::plan::{RefusalReason, WaitReason, loses_data};

/// How long a node that we restarted ourselves may be away before that is trouble, seconds.
const PLANNED_SECONDS: u64 = 60;

/// How long a layer may lack redundancy before that is trouble of its own: a replica that is filled from the beginning takes minutes.
const REDUNDANCY_LACKS: SignedDuration = SignedDuration::from_mins(10);

/// One thing that does not end by waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    reason: Cow<'static, str>,
    text: String,
}

fn cause(reason: impl Into<Cow<'static, str>>, text: String) -> Cause {
    Cause { reason: reason.into(), text }
}

/// The condition. `kept`: what the nodes keep aside. `highly_available`: that condition, as this pass found it. `old`: the conditions
/// before, with their times.
pub(super) fn of(
    facts: Facts<'_>,
    kept: &KeptFolders,
    highly_available: &ConditionDraft,
    old: &[Condition],
    now: Timestamp,
) -> ConditionDraft {
    let mut causes = causes(facts, kept);
    if causes.is_empty() && !facts.desired.paused && lacks_redundancy(highly_available, old, now) {
        causes.push(cause("NotRedundant", highly_available.message.clone()));
    }
    let Some(first) = causes.first() else {
        return ConditionDraft::new(ConditionKind::Degraded, Some(false), "AsDeclared", "nothing is wrong");
    };
    let reason = first.reason.clone();
    let texts: Vec<&str> = causes.iter().map(|cause| cause.text.as_str()).collect();
    ConditionDraft::new(ConditionKind::Degraded, Some(true), reason, texts.join("; "))
}

/// All causes, the gravest first.
fn causes(facts: Facts<'_>, kept: &KeptFolders) -> Vec<Cause> {
    // First, and in a new layer as well: nothing else ends it.
    let mut causes: Vec<Cause> = facts.waits.iter().map(|wait| cause(NEEDS_PERSON, wait.clone())).collect();
    causes.extend(facts.plan.refused.iter().filter_map(held));
    causes.extend(ending_volumes(facts));
    let undone = facts.undone.iter().filter(|undone| !undone.passes);
    causes.extend(undone.map(|undone| cause("StepRefused", undone.why.clone())));
    let grave = facts.plan.waiting.iter().filter(|what| trouble(facts, what).is_some());
    let told = words::together(facts, grave);
    let mut troubles: Vec<Cause> =
        told.into_iter().filter_map(|(what, text)| Some(cause(trouble(facts, what)?, text))).collect();
    // What Kubernetes says of a pod is why there is no primary, and why a replica does not answer.
    troubles.sort_by_key(|cause| matches!(&*cause.reason, "NoPrimary" | "NoAnswer" | "PodNotReady" | "PodMissing"));
    causes.extend(troubles);
    // A layer that was never Ready may hold the volumes of a predecessor.
    let folders = kept.iter().flat_map(|(node, folders)| folders.iter().map(move |folder| (node, folder)));
    causes.extend(folders.map(|(node, folder)| cause(DATA_KEPT_ASIDE, kept::sentence(&node.to_string(), folder))));
    // A layer that was never Ready is not degraded by what is still on its way.
    if facts.observed.initialised {
        let all = |reason: &'static str, texts: Vec<String>| texts.into_iter().map(move |text| cause(reason, text));
        if facts.subject.keeps_data {
            causes.extend(all("FilesNotWritten", proofs::files(facts.observed)));
        }
        // One that is not proven yet is asked again in the next pass.
        let is_proven = |breach: &&String| !breach.ends_with(NOT_PROVEN_YET);
        let breaches = facts.subject.application_breaches.iter().filter(is_proven).cloned().collect();
        causes.extend(all("RightsDiffer", breaches));
        causes.extend(all("RefusesClients", proofs::refusing_clients(facts.desired, facts.observed)));
        causes.extend(all("SentinelInTilt", proofs::tilted(facts.desired, facts.observed)));
        // A server that we took away a moment ago answers nothing, or not everything yet.
        let unplanned = facts.faults.iter().filter(|(node, _)| !is_taken(facts.observed, *node));
        causes.extend(all("ServerFault", unplanned.map(|(node, words)| format!("{node}: {words}")).collect()));
    }
    causes
}

/// Data nodes whose volume goes with their pod, and that may end at any time: nothing takes the deletion of a claim back.
fn ending_volumes(facts: Facts<'_>) -> impl Iterator<Item = Cause> {
    let (desired, observed) = (facts.desired, facts.observed);
    let nodes = observed.nodes.iter().filter(move |(node, _)| desired.reads_files && desired.nodes.contains_key(node));
    nodes.filter_map(move |(node, seen)| {
        let loses = loses_data(desired, observed, facts.plan.primaries.of(*node), *node);
        let text = words::ending_volume(desired, *node, seen.ending_claim.as_deref()?, loses);
        Some(cause("VolumeBeingDeleted", text))
    })
}

/// A refusal that only another specification ends, or fewer data. Every other one passes with what it waits for.
fn held(refused: &RefusalReason) -> Option<Cause> {
    let reason = match refused {
        RefusalReason::OlderEngine { .. } => "OlderEngine",
        RefusalReason::MemoryBelowData { .. } => "MemoryBelowData",
        RefusalReason::NoInSyncReplica { .. }
        | RefusalReason::NotInSync { .. }
        | RefusalReason::NoSentinelMajority { .. }
        | RefusalReason::AnotherNodeIsDown { .. }
        | RefusalReason::Electing { .. }
        // Told before anything is refused for it.
        | RefusalReason::VolumeBeingDeleted { .. }
        | RefusalReason::Unsettled { .. }
        | RefusalReason::Unknown { .. } => return None,
    };
    Some(cause(reason, words::refused(refused)))
}

/// The reason of a wait that is trouble: a node that served is away and we did not take it away just now, or Kubernetes says that it cannot start
/// a node's pod. In a layer that was never Ready the first is only a matter of time, and so is the second for a while.
fn trouble(facts: Facts<'_>, what: &WaitReason) -> Option<Cow<'static, str>> {
    let observed = facts.observed;
    let is_unplanned = |node: &NodeId| observed.initialised && !is_taken(observed, *node);
    let (reason, is_trouble) = match what {
        WaitReason::Pod { node, trouble: Some(words) } => {
            let is_told = observed.initialised || away(observed, *node).seconds >= ABSENT_SECONDS;
            (first_word(words), is_told)
        }
        WaitReason::Pod { node, trouble: None } | WaitReason::Termination { node } => {
            (Cow::Borrowed("PodMissing"), is_unplanned(node))
        }
        WaitReason::Server { node } => (Cow::Borrowed("NoAnswer"), is_unplanned(node)),
        WaitReason::NotReady { node } => (Cow::Borrowed("PodNotReady"), is_unplanned(node)),
        // How long it takes depends on the data.
        WaitReason::Loading { node } => {
            (Cow::Borrowed("Loading"), observed.initialised && !away(observed, *node).planned)
        }
        WaitReason::Primary => {
            let is_ours = observed.nodes.keys().any(|node| is_taken(observed, *node));
            // While it is moved as planned both nodes hold it for a moment, and the layer is Ready.
            (Cow::Borrowed("NoPrimary"), observed.initialised && !is_ours && !observed.handover)
        }
        WaitReason::Owner { shard } => {
            let is_ours =
                observed.nodes.keys().any(|node| Shard::of(*node) == Some(*shard) && is_taken(observed, *node));
            (Cow::Borrowed("NoPrimary"), observed.initialised && !is_ours)
        }
        WaitReason::SlotsLost { .. } => (Cow::Borrowed("SlotsLost"), true),
        WaitReason::Stranger { slots, .. } => (Cow::Borrowed("ForeignOwner"), *slots > 0),
        WaitReason::Gathering
        | WaitReason::Agreement { .. }
        | WaitReason::Address { .. }
        | WaitReason::Sync { .. }
        | WaitReason::SentinelView { .. }
        | WaitReason::Forgetting { .. }
        | WaitReason::Removal { .. }
        | WaitReason::Failover
        | WaitReason::Handover
        | WaitReason::Approval
        | WaitReason::Paused => return None,
    };
    is_trouble.then_some(reason)
}

fn away(observed: &Observed, node: NodeId) -> UnavailableNode {
    observed.nodes.get(&node).and_then(|seen| seen.away.clone()).unwrap_or_default()
}

/// Whether a node is away because we took it away a moment ago.
fn is_taken(observed: &Observed, node: NodeId) -> bool {
    let away = away(observed, node);
    away.planned && away.seconds < PLANNED_SECONDS
}

/// Kubernetes' own reason: what its words begin with, before the colon.
fn first_word(words: &str) -> Cow<'static, str> {
    let first = words.split(':').next().unwrap_or_default();
    let is_reason = first.starts_with(|letter: char| letter.is_ascii_uppercase())
        && first.len() <= 40
        && first.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_reason { Cow::Owned(first.to_owned()) } else { Cow::Borrowed("PodNotRunning") }
}

/// Whether the layer was Ready once and has lacked a replica or a Sentinel for long.
fn lacks_redundancy(now_said: &ConditionDraft, old: &[Condition], now: Timestamp) -> bool {
    let since = old.iter().find(|known| known.type_ == ConditionKind::HighlyAvailable && known.status == "False");
    now_said.reason == "NotRedundant"
        && since.is_some_and(|since| now.duration_since(since.last_transition_time.0) >= REDUNDANCY_LACKS)
        && old.iter().any(|known| known.type_ == ConditionKind::Ready && known.status == "True")
}
