//! The planner's waits and refusals as sentences.

use super::agreement::unsettled;
use super::{Facts, proofs};
use crate::api::names;
use crate::model::NodeId;
use crate::model::desired::Desired;
use crate::plan::{RefusalReason, WaitReason};

/// Why no node serves: what is waited for, as far as it is more than the missing primary.
pub(super) fn no_primary(facts: Facts<'_>) -> String {
    let waits = facts.plan.waiting.iter().filter(|what| !matches!(what, WaitReason::Primary));
    let because: Vec<String> = together(facts, waits).into_iter().map(|(_, told)| told).collect();
    let fact = if facts.desired.in_cluster {
        "a shard has no primary"
    } else if facts.desired.has_sentinels() {
        "there is no primary: no data node says that it is one while most Sentinels name it"
    } else {
        "the data node does not serve"
    };
    if because.is_empty() { fact.to_owned() } else { format!("{fact}: {}", because.join("; ")) }
}

/// What is waited for, each with its sentence: nodes whose pods do not run for one and the same reason share the first one's.
pub(super) fn together<'plan>(
    facts: Facts<'_>,
    waits: impl IntoIterator<Item = &'plan WaitReason>,
) -> Vec<(&'plan WaitReason, String)> {
    let mut told: Vec<(&WaitReason, Vec<NodeId>)> = Vec::new();
    for what in waits {
        let Some((node, why)) = pod(what) else {
            told.push((what, Vec::new()));
            continue;
        };
        match told.iter_mut().find(|(first, _)| pod(first).is_some_and(|(_, known)| known == why)) {
            Some((_, nodes)) => nodes.push(node),
            None => told.push((what, vec![node])),
        }
    }
    let sentence = |what: &WaitReason, nodes: &[NodeId]| match pod(what) {
        Some((_, why)) => pods(nodes, why),
        None => waiting(facts, what),
    };
    told.into_iter().map(|(what, nodes)| (what, sentence(what, &nodes))).collect()
}

/// The node whose pod does not run, and why.
fn pod(what: &WaitReason) -> Option<(NodeId, Option<&String>)> {
    match what {
        WaitReason::Pod { node, trouble } => Some((*node, trouble.as_ref())),
        _ => None,
    }
}

fn pods(nodes: &[NodeId], why: Option<&String>) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let pods = if nodes.len() == 1 { "the pod of" } else { "the pods of" };
    let verb = if nodes.len() == 1 { "does" } else { "do" };
    let fact = format!("{pods} {} {verb} not run", names.join(", "));
    why.map_or_else(|| format!("{fact} yet"), |why| format!("{fact}: {why}"))
}

/// What one wait is for.
pub(super) fn waiting(facts: Facts<'_>, what: &WaitReason) -> String {
    match what {
        WaitReason::Gathering => "changes of function libraries are being gathered".to_owned(),
        WaitReason::Address { node } => format!("{node} has no address yet"),
        WaitReason::Pod { node, trouble } => pods(&[*node], trouble.as_ref()),
        WaitReason::Server { node } => format!("the server of {node} does not answer"),
        WaitReason::NotReady { node } => format!("the pod of {node} is not ready"),
        WaitReason::Loading { node } => format!("{node} is loading its data"),
        WaitReason::Sync { node } => format!("{node} is not in sync yet"),
        WaitReason::Primary if !facts.desired.has_sentinels() => {
            "the data node does not serve as a primary yet".to_owned()
        }
        WaitReason::Primary => "most Sentinels do not agree on a primary yet".to_owned(),
        WaitReason::Owner { shard } => format!("{shard} has no primary: none of its nodes owns its slots and serves"),
        WaitReason::Agreement { what } => format!("the servers do not agree yet: {}", unsettled(what)),
        WaitReason::Stranger { id, slots: 0 } => {
            format!("the servers still remember {id}, which is no node any more; they are told to forget it")
        }
        WaitReason::Stranger { id, slots } => format!(
            "{id} is no node of this layer and owns {slots} slots: it is not made forgotten; have its slots moved to a node of the layer, or stop it"
        ),
        WaitReason::SlotsLost { slots } => {
            format!("no server owns the slots {slots}: their data is lost with their nodes")
        }
        WaitReason::SentinelView { node } => format!("{node} does not know all others yet"),
        WaitReason::Forgetting { node } => {
            format!("{node} still lists a removed node; the Sentinels forget it one after the other, about 30 s apart")
        }
        WaitReason::Termination { node } => format!("the pod of {node} is being deleted"),
        WaitReason::Removal { node, because: None } => format!("{node} is being removed"),
        WaitReason::Removal { node, because: Some(why) } => {
            format!("{node} is to be removed, but not yet: {}", refused(why))
        }
        WaitReason::Failover => "a failover is under way".to_owned(),
        WaitReason::Handover => "the primary is being moved".to_owned(),
        WaitReason::Approval => approval(facts),
        WaitReason::Paused => "spec.paused is set".to_owned(),
    }
}

/// Bytes in steps that a status may show: it rests while the data changes a little.
const fn at_rest(bytes: u64) -> u64 {
    const STEP: u64 = 16 << 20;
    if bytes < STEP { bytes } else { bytes / STEP * STEP }
}

/// A refusal as a sentence.
pub(super) fn refused(refused: &RefusalReason) -> String {
    match refused {
        RefusalReason::NoInSyncReplica { node } => {
            format!("the primary {node} is not stopped: no replica is in sync and may take over")
        }
        RefusalReason::NotInSync { node, behind } => format!("{node} is not disturbed while {behind} is not in sync"),
        RefusalReason::NoSentinelMajority { node } => {
            format!("{node} is not disturbed: too few Sentinels of those that are remembered would be left")
        }
        RefusalReason::AnotherNodeIsDown { node, down } => format!("{node} is not restarted while {down} is down"),
        RefusalReason::Electing { node } => format!("{node} is not changed: it is in the middle of a failover"),
        RefusalReason::OlderEngine { node, running, wanted } => format!(
            "{node} is not changed: {wanted} cannot read the files of {running}, which runs; name an image of that version or a later one in engine.image"
        ),
        RefusalReason::MemoryBelowData { node, held, maxmemory } => format!(
            "{node} is not changed: maxmemory would be {}Mi, and the primary holds {}Mi or more; raise memory.limit, or delete data first",
            maxmemory >> 20,
            at_rest(*held) >> 20
        ),
        RefusalReason::VolumeBeingDeleted { node } => format!(
            "{node} is not restarted: its volume claim is being deleted and goes with the pod, and no other node keeps the data"
        ),
        RefusalReason::Unsettled { node, what } => {
            format!("{node} is not restarted while the servers do not agree: {}", unsettled(what))
        }
        RefusalReason::Unknown { node, about } => format!("{node} is not changed: nothing is known of {about}"),
    }
}

/// A volume that goes with its pod, and what to do before that. `loses`: the data goes with it.
pub(super) fn ending_volume(desired: &Desired, node: NodeId, claim: &str, loses: bool) -> String {
    let fact = format!("{node}: its volume claim {claim} is being deleted and goes when its pod does");
    let Desired { layer, .. } = desired;
    let (namespace, workload) = (&layer.namespace, names::node(&layer.name, node));
    match (loses, desired.fails_over()) {
        (false, _) => format!(
            "{fact}; to have a new volume filled from another node: kubectl -n {namespace} rollout restart statefulset {workload}"
        ),
        (true, true) => format!(
            "{fact}, and no other node keeps the data, so the operator does not restart it; add a replica (spec.replicas), or copy the data, before its pod ends"
        ),
        (true, false) => format!(
            "{fact}, and the data with it, so the operator does not restart it; copy the data before its pod ends"
        ),
    }
}

/// What waits for an approval, how it is given, and why a value that is there is none.
fn approval(facts: Facts<'_>) -> String {
    let Desired { layer, generation, .. } = facts.desired;
    let nodes = proofs::revisions(facts.desired, facts.observed);
    let (annotation, given) = (names::ANNOTATION_APPROVED_GENERATION, &facts.subject.odd_approval);
    let odd = given
        .as_ref()
        .map(|value| format!("; {annotation}={value:?} approves nothing: its value is a number"))
        .unwrap_or_default();
    format!(
        "{} of {} pods are to be restarted ({}); to approve: kubectl -n {} annotate datalayer {} {annotation}={generation} --overwrite{odd}",
        nodes.len(),
        facts.desired.nodes.len(),
        nodes.join(", "),
        layer.namespace,
        layer.name,
    )
}
