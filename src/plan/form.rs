//! What should exist and does not: Services first, for their addresses, then everything at once.

use super::nodes::is_leaving;
use super::reason::ApplyReason;
use super::{Plan, Step, WaitReason, hold};
use crate::model::desired::{Desired, DesiredNode};
use crate::model::observed::{Observed, ObservedNode, ObservedServer};
use crate::model::{NodeId, NodeKind};

/// How long a node has no pod before its StatefulSet gets a new template, seconds. A StatefulSet makes a pod that was evicted
/// again within milliseconds; one that makes none for this long is refused it, or no controller makes pods.
pub(crate) const ABSENT_SECONDS: u64 = 5;

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let lacks_address = |node: &NodeId| observed.nodes.get(node).is_none_or(|seen| seen.address.is_none());
    let without: Vec<_> = desired.nodes.keys().copied().filter(|node| lacks_address(node)).collect();
    for node in without {
        plan.steps.push(Step::ApplyService { node });
        plan.waiting.push(WaitReason::Address { node });
    }
    if !plan.waiting.is_empty() {
        return;
    }
    for (node, wanted) in &desired.nodes {
        let seen = observed.nodes.get(node);
        let is_held = |reason: &ApplyReason| {
            *reason == ApplyReason::NoPod
                && hold::older_engine(desired, observed, plan.primaries.of(*node), *node).is_some()
        };
        if let Some(reason) = reason_to_apply(wanted, seen).filter(|reason| !is_held(reason)) {
            let workload_digest = wanted.workload_digest.clone();
            plan.steps.push(Step::ApplyWorkload { node: *node, workload_digest, reason });
        }
        let Some(seen) = seen else { continue };
        if let Some(pod_uid) = seen.unlabelled_pod.clone() {
            plan.steps.push(Step::RelabelPod { node: *node, pod_uid });
        }
        if is_leaving(observed, *node) {
            plan.waiting.push(WaitReason::Termination { node: *node });
            continue;
        }
        match &seen.pod {
            None => plan.waiting.push(WaitReason::Pod { node: *node, trouble: words(seen) }),
            Some(pod) if pod.trouble.is_some() || words(seen).is_some() => {
                let told: Vec<String> = pod.trouble.clone().into_iter().chain(words(seen)).collect();
                plan.waiting.push(WaitReason::Pod { node: *node, trouble: Some(told.join("; ")) });
            }
            Some(pod) => {
                // The document belongs to the pod's revision, so an older pod keeps its own until its turn. One that is down has
                // to be told all the same: it may wait for a peer that the old document does not name, and hold up the roll.
                let is_down = !pod.ready && seen.server == ObservedServer::Unknown;
                let takes_it = pod.restart_revision == wanted.restart_revision
                    || is_down
                    || introduces_removed_nodes(desired, observed, *node);
                if takes_it && pod.config_digest != wanted.config_digest {
                    plan.steps.push(Step::PatchConfig {
                        node: *node,
                        pod_uid: pod.uid.clone(),
                        config_digest: wanted.config_digest.clone(),
                    });
                }
                match seen.server {
                    ObservedServer::Unknown => plan.waiting.push(WaitReason::Server { node: *node }),
                    ObservedServer::Loading => plan.waiting.push(WaitReason::Loading { node: *node }),
                    ObservedServer::Data(_) | ObservedServer::Sentinel(_) if !pod.ready => {
                        plan.waiting.push(WaitReason::NotReady { node: *node });
                    }
                    ObservedServer::Data(_) | ObservedServer::Sentinel(_) => {}
                }
            }
        }
    }
}

/// Why a node's StatefulSet is applied now; `None`: it is not.
fn reason_to_apply(wanted: &DesiredNode, seen: Option<&ObservedNode>) -> Option<ApplyReason> {
    let Some((seen, workload)) = seen.and_then(|seen| Some((seen, seen.workload.as_ref()?))) else {
        return Some(ApplyReason::Missing);
    };
    if workload.deleting || workload.workload_digest == wanted.workload_digest {
        return None;
    }
    if workload.restart_revision == wanted.restart_revision {
        return Some(ApplyReason::Drift);
    }
    // A new restart revision is the roll's to apply: until the node's turn an eviction brings the old pod back.
    match &seen.pod {
        // A roll that was taken back: an eviction would bring the wrong pod.
        Some(pod) if !pod.deleting && pod.restart_revision == wanted.restart_revision => Some(ApplyReason::Drift),
        // No pod is there to be disturbed, and the corrected template may be what lets one be made.
        None if is_absent(seen) => Some(ApplyReason::NoPod),
        Some(_) | None => None,
    }
}

/// Whether a node has had no pod for longer than it takes to make one.
fn is_absent(seen: &ObservedNode) -> bool {
    seen.pod.is_none() && seen.away.as_ref().is_some_and(|away| away.seconds >= ABSENT_SECONDS)
}

/// Whether the document of a Sentinel's older pod may name a Sentinel of which only the Service is left. Its agent would introduce
/// that one again and again, and while it is remembered too few may be left for the pod's turn to come.
fn introduces_removed_nodes(desired: &Desired, observed: &Observed, node: NodeId) -> bool {
    let is_gone = |(id, seen): (&NodeId, &ObservedNode)| {
        id.kind == NodeKind::Sentinel
            && !desired.nodes.contains_key(id)
            && seen.workload.is_none()
            && seen.pod.is_none()
    };
    node.kind == NodeKind::Sentinel && observed.nodes.iter().any(is_gone)
}

/// What Kubernetes says of a node that is away.
fn words(seen: &ObservedNode) -> Option<String> {
    seen.away.as_ref()?.words.clone()
}
