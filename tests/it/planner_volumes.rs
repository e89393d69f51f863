//! The planner where a volume claim is being deleted: the volume goes with the pod.

use std::collections::BTreeMap;

use redoubt::model::NodeId;
use redoubt::model::desired::Desired;
use redoubt::model::observed::{Observed, ObservedServer};
use redoubt::plan::{RefusalReason, Step, plan};

use crate::planner::{address, converged, desired};
use crate::planner_rules::masters_of;

fn ending(observed: &Observed, ordinals: &[u16]) -> Observed {
    let mut observed = observed.clone();
    for ordinal in ordinals {
        let seen = observed.nodes.get_mut(&NodeId::data(*ordinal)).unwrap();
        seen.ending_claim = Some(format!("data-web-redis-{ordinal}-0"));
    }
    observed
}

/// What is done when a person asks for a restart of the node.
fn asked_to_restart(desired: &Desired, observed: &Observed, node: NodeId) -> Result<Vec<Step>, Vec<RefusalReason>> {
    let mut observed = observed.clone();
    let restarts = BTreeMap::from([("redoubt.dev/restarted-at".to_owned(), "now".to_owned())]);
    observed.nodes.get_mut(&node).unwrap().workload.as_mut().unwrap().restarts = restarts;
    let plan = plan(desired, &observed);
    if plan.refused.is_empty() { Ok(plan.steps) } else { Err(plan.refused) }
}

/// The volume goes with the pod: that of a replica is filled from the others, if those keep the data whatever happens next.
#[test]
fn a_node_whose_volume_is_being_deleted_is_restarted_only_where_others_keep_the_data() {
    let (three, observed) = (desired("old"), converged(NodeId::data(0)));
    let (primary, replica) = (NodeId::data(0), NodeId::data(1));
    let restarts = |answer: &Result<Vec<Step>, _>| matches!(answer.as_deref(), Ok([Step::RestartPod { node, ends_claim: true, .. }]) if *node == replica);
    for ending_ones in [&[1][..], &[0, 1], &[0, 1, 2]] {
        let answer = asked_to_restart(&three, &ending(&observed, ending_ones), replica);
        assert!(restarts(&answer), "{ending_ones:?}: {answer:?}");
    }
    let moves = |answer: Result<Vec<Step>, _>| matches!(answer.as_deref(), Ok([Step::Switchover { from, .. }]) if *from == primary);
    assert!(moves(asked_to_restart(&three, &ending(&observed, &[0]), primary)));

    let (mut two, mut observed) = (three, observed);
    two.nodes.remove(&NodeId::data(2));
    observed.nodes.remove(&NodeId::data(2));
    for master in masters_of(&mut observed) {
        master.replicas.remove(&address(NodeId::data(2)));
    }
    let refused = |node| Err(vec![RefusalReason::VolumeBeingDeleted { node }]);
    assert!(restarts(&asked_to_restart(&two, &ending(&observed, &[1]), replica)));
    assert!(moves(asked_to_restart(&two, &ending(&observed, &[0]), primary)));
    assert_eq!(asked_to_restart(&two, &ending(&observed, &[0, 1]), replica), refused(replica));
    assert_eq!(asked_to_restart(&two, &ending(&observed, &[0, 1]), primary), refused(primary));
    let mut unknown = ending(&observed, &[1]);
    for seen in unknown.nodes.values_mut() {
        seen.server = ObservedServer::Unknown;
    }
    assert!(asked_to_restart(&two, &unknown, replica).is_err(), "no node is known to have the data");
}

#[test]
fn the_only_node_is_not_restarted_while_its_volume_is_being_deleted() {
    let mut desired = desired("old");
    let mut observed = converged(NodeId::data(0));
    let only = NodeId::data(0);
    desired.nodes.retain(|node, _| *node == only);
    observed.nodes.retain(|node, _| *node == only);
    let refused = Err(vec![RefusalReason::VolumeBeingDeleted { node: only }]);
    assert_eq!(asked_to_restart(&desired, &ending(&observed, &[0]), only), refused);
    assert!(asked_to_restart(&desired, &observed, only).is_ok_and(|steps| steps.len() == 1));
    let forgetful = Desired { reads_files: false, ..desired.clone() };
    assert!(asked_to_restart(&forgetful, &ending(&observed, &[0]), only).is_ok_and(|steps| steps.len() == 1));
    // Its engine does not start, and the volume has the data all the same.
    let seen = observed.nodes.get_mut(&only).unwrap();
    seen.server = ObservedServer::Unknown;
    let pod = seen.pod.as_mut().unwrap();
    (pod.ready, pod.trouble) = (false, Some("ImagePullBackOff".to_owned()));
    assert_eq!(asked_to_restart(&desired, &ending(&observed, &[0]), only), refused);
    assert!(asked_to_restart(&desired, &observed, only).is_ok_and(|steps| steps.len() == 1));
}
