//! Checks a finished plan for contradictions. Knows only the plan and what is desired: a plan must make sense by itself.

use std::collections::BTreeSet;

use super::reason::RestartReason;
use super::{Plan, Step, WaitReason};
use crate::model::desired::Desired;

/// What is wrong with a plan, in sentences; empty: nothing.
pub fn lint(desired: &Desired, plan: &Plan) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    let disruptions: Vec<&Step> = plan.steps.iter().filter(|step| step.is_disruptive()).collect();
    let waits = |waiting: &WaitReason| plan.waiting.contains(waiting);
    expect(disruptions.len() <= 1, "more than one node is disturbed");
    expect(plan.steps.iter().collect::<BTreeSet<_>>().len() == plan.steps.len(), "a step is there twice");
    let routes = |step: &Step| matches!(step, Step::PointService { .. } | Step::LabelPod { .. });
    expect(plan.steps.iter().is_sorted_by_key(|step| !routes(step)), "clients are routed after another step");
    expect(plan.steps.is_empty() || !waits(&WaitReason::Paused), "a paused layer is changed");
    expect(!(waits(&WaitReason::Failover) && waits(&WaitReason::Primary)), "no primary is told twice");
    let is_idle = plan.steps.is_empty() && plan.waiting.is_empty() && plan.refused.is_empty();
    expect(!is_idle || plan.initialised, "a converged layer is not recorded as initialised");
    for step in disruptions {
        let is_broken = matches!(step, Step::RestartPod { reason: RestartReason::BrokenRevision, .. });
        expect(is_broken || !waits(&WaitReason::Failover), "a node is disturbed while a failover is under way");
        let restarts = matches!(step, Step::RestartPod { .. });
        expect(!(restarts && waits(&WaitReason::Approval)), "a restart does not wait for its approval");
        expect(plan.refused.iter().all(|refused| refused.node() != step.node()), "a node is disturbed that may not be");
        expect(!is_taken(desired, plan, step), "the primary is taken away");
        expect(!plan.steps.iter().any(|other| other != step && contradicts(other, step)), "two steps contradict");
    }
    for step in &plan.steps {
        match step {
            Step::Switchover { from, candidates, to, .. } => {
                expect(to.is_none_or(|to| candidates.contains(&to)), "the primary moves to one who is no candidate");
                let all_fit = candidates.iter().all(|to| to != from && desired.nodes.contains_key(to));
                expect(all_fit && !candidates.is_empty(), "the primary moves to no node, to itself or to a stranger");
                expect(plan.primaries.is(*from), "one who is not primary is moved away from");
            }
            Step::DeleteLibrary { library, .. } => {
                let is_wanted = desired.libraries.contains_key(library) || desired.kept_libraries.contains(library);
                expect(
                    step.is_of_users_library() && !is_wanted,
                    "a library that is wanted or the operator's is deleted",
                );
                expect(plan.primaries.is(step.node()), "a library is deleted on a node that is not primary");
            }
            Step::PointService { node, .. } => {
                expect(plan.primaries.is(*node), "clients are sent to a node that is not primary");
            }
            // One that is no longer declared has a role until it is gone.
            // So it is with what its server remembers.
            Step::LabelPod { .. } | Step::ForgetMember { .. } => {}
            Step::AddSlots { node, slots, .. } => {
                expect(!plan.initialised, "slots are given away in a Cluster that was whole");
                expect(plan.primaries.is(*node) && !slots.is_empty(), "slots are given to a node that is not primary");
            }
            Step::RemoveNode { node, .. } => expect(!desired.nodes.contains_key(node), "a declared node is removed"),
            step => expect(desired.nodes.contains_key(&step.node()), "a node that is not declared is changed"),
        }
    }
    faults
}

/// Whether a step takes the primary's pod away. Without Sentinels there is no node to move to.
fn is_taken(desired: &Desired, plan: &Plan, step: &Step) -> bool {
    let takes = matches!(step, Step::RestartPod { .. } | Step::RemoveNode { .. });
    takes && plan.primaries.is(step.node()) && desired.has_sentinels()
}

/// What is applied now is not deleted in the same batch, nor built on before it was seen.
fn contradicts(other: &Step, disruption: &Step) -> bool {
    let is_form = matches!(other, Step::ApplyService { .. } | Step::ApplyWorkload { .. } | Step::PatchConfig { .. });
    is_form && other.node() == disruption.node()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::model::desired::{DesiredNode, SentinelSettings};
    use crate::model::roles::Primaries;
    use crate::model::{LayerIdentity, NodeId};

    fn desired() -> Desired {
        let sentinel =
            DesiredNode { workload_digest: "a".into(), restart_revision: "b".into(), config_digest: "c".into() };
        Desired {
            layer: LayerIdentity { uid: "uid".into(), namespace: "shop".into(), name: "web".into() },
            generation: 1,
            in_cluster: false,
            paused: false,
            engine: None,
            reads_files: true,
            disruption_needs_approval: false,
            nodes: [(NodeId::sentinel(0), sentinel)].into(),
            settings: BTreeMap::new(),
            start_only: BTreeSet::new(),
            users: BTreeMap::new(),
            sentinel_users: BTreeMap::new(),
            libraries: BTreeMap::new(),
            kept_libraries: BTreeSet::new(),
            gathering: false,
            sentinel_settings: SentinelSettings {
                quorum: 2,
                detection: Duration::from_millis(1),
                failover_timeout: Duration::from_millis(1),
                parallel_syncs: 1,
            },
            master_name: "web-uid".into(),
            promotion: None,
        }
    }

    #[test]
    fn a_plan_that_takes_two_nodes_and_the_primary_is_found_out() {
        let remove = |ordinal| Step::RemoveNode {
            node: NodeId::data(ordinal),
            workload_uid: Some("uid".into()),
            config_epoch: Some(1),
        };
        let mut plan = Plan { steps: vec![remove(0), remove(1)], ..Plan::default() };
        assert_eq!(lint(&desired(), &plan), ["more than one node is disturbed"]);
        plan.steps.pop();
        assert!(lint(&desired(), &plan).is_empty());
        plan.primaries = [NodeId::data(0)].into_iter().collect();
        assert_eq!(lint(&desired(), &plan), ["the primary is taken away"]);
        plan.primaries = Primaries::default();
        plan.waiting.push(WaitReason::Failover);
        assert_eq!(lint(&desired(), &plan), ["a node is disturbed while a failover is under way"]);
        assert_eq!(lint(&desired(), &Plan::default()), ["a converged layer is not recorded as initialised"]);
    }
}
