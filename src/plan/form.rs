//! The objects that nodes live in: Services first, because every node's document names all addresses; then StatefulSets.
//! Nothing here restarts a pod.

use super::step::ApplyReason;
use super::view::View;
use super::{Plan, Step};

/// Plans what is missing or was changed by hand.
pub fn plan(view: &View<'_>, plan: &mut Plan) {
    let missing: Vec<_> = view.desired.nodes.keys().copied().filter(|node| view.address(*node).is_none()).collect();
    if !missing.is_empty() {
        plan.steps.extend(missing.into_iter().map(|node| Step::ApplyService { node }));
        // A document without all addresses would have to be replaced at once.
        return;
    }
    for (&node, wanted) in &view.desired.nodes {
        let workload = view.seen(node).and_then(|seen| seen.workload.as_ref());
        let reason = match workload {
            None => ApplyReason::Missing,
            Some(workload) if workload.deleting || workload.workload_digest == wanted.workload_digest => continue,
            // Another restart revision is applied when it is the node's turn to be rolled.
            Some(workload) if workload.restart_revision != wanted.restart_revision => continue,
            Some(_) => ApplyReason::Drift,
        };
        plan.dials.apply.insert(node, wanted.workload_digest.clone());
        plan.steps.push(Step::ApplyWorkload { node, workload_digest: wanted.workload_digest.clone(), reason });
    }
}
