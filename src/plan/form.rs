//! What should exist and does not: Services first, for their addresses, then everything at once.

use super::safety::is_leaving;
use super::step::ApplyReason;
use super::{Plan, Step, Waiting};
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedServer};

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let lacks_address =
        |node: &crate::model::NodeId| observed.nodes.get(node).is_none_or(|seen| seen.address.is_none());
    let without: Vec<_> = desired.nodes.keys().copied().filter(|node| lacks_address(node)).collect();
    for node in without {
        plan.steps.push(Step::ApplyService { node });
        plan.waiting.push(Waiting::Address { node });
    }
    if !plan.waiting.is_empty() {
        return;
    }
    for (node, wanted) in &desired.nodes {
        let seen = observed.nodes.get(node);
        let workload = seen.and_then(|seen| seen.workload.as_ref());
        let reason = match workload {
            None => Some(ApplyReason::Missing),
            Some(workload) if workload.deleting => None,
            // A new restart revision is the roll's to apply: until the node's turn an eviction brings the old pod back.
            // Where the pod already is what is wanted (a roll that was taken back), an eviction would bring the wrong one.
            Some(workload)
                if workload.restart_revision != wanted.restart_revision
                    && seen
                        .and_then(|seen| seen.pod.as_ref())
                        .is_none_or(|pod| pod.deleting || pod.restart_revision != wanted.restart_revision) =>
            {
                None
            }
            Some(workload) => (workload.workload_digest != wanted.workload_digest).then_some(ApplyReason::Drift),
        };
        if let Some(reason) = reason {
            let workload_digest = wanted.workload_digest.clone();
            plan.steps.push(Step::ApplyWorkload { node: *node, workload_digest, reason });
        }
        let Some(seen) = seen else { continue };
        if is_leaving(observed, *node) {
            plan.waiting.push(Waiting::Termination { node: *node });
            continue;
        }
        match &seen.pod {
            None => plan.waiting.push(Waiting::Pod { node: *node, trouble: None }),
            Some(pod) if pod.trouble.is_some() => {
                plan.waiting.push(Waiting::Pod { node: *node, trouble: pod.trouble.clone() });
            }
            Some(pod) => {
                // The document belongs to the pod's revision, so an older pod keeps its own until its turn. One that is down has
                // to be told all the same: it may wait for a peer that the old document does not name, and hold up the roll.
                let is_down = !pod.ready && seen.server == ObservedServer::Unknown;
                let takes_it = pod.restart_revision == wanted.restart_revision || is_down;
                if takes_it && pod.config_digest != wanted.config_digest {
                    plan.steps.push(Step::PatchConfig {
                        node: *node,
                        pod_uid: pod.uid.clone(),
                        config_digest: wanted.config_digest.clone(),
                    });
                }
                match seen.server {
                    ObservedServer::Unknown => plan.waiting.push(Waiting::Server { node: *node }),
                    ObservedServer::Loading => plan.waiting.push(Waiting::Loading { node: *node }),
                    ObservedServer::Data(_) | ObservedServer::Sentinel(_) if !pod.ready => {
                        plan.waiting.push(Waiting::Server { node: *node });
                    }
                    ObservedServer::Data(_) | ObservedServer::Sentinel(_) => {}
                }
            }
        }
    }
}
