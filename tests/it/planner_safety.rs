//! What forbids to restart a node, one fact at a time.

use redoubt::model::NodeId;
use redoubt::model::observed::{Observed, ObservedServer, Replication};
use redoubt::plan::{RefusalReason, Step, plan};

use crate::planner::{converged, desired};

/// What the planner refuses where this node alone is to be restarted, and whether it restarts anything.
fn refused(node: NodeId, spoil: impl FnOnce(&mut Observed)) -> (Vec<RefusalReason>, bool) {
    let mut wanted = desired("old");
    "new".clone_into(&mut wanted.nodes.get_mut(&node).unwrap().restart_revision);
    let mut observed = converged(NodeId::data(0));
    spoil(&mut observed);
    let next = plan(&wanted, &observed);
    (next.refused, next.steps.iter().any(|step| step.is_disruptive() || matches!(step, Step::ApplyWorkload { .. })))
}

#[test]
fn a_node_is_restarted_where_the_others_are_in_sync() {
    for node in [NodeId::data(1), NodeId::sentinel(0)] {
        assert_eq!(refused(node, |_| ()), (vec![], true), "{node}");
    }
}

#[test]
fn no_replica_is_restarted_while_another_is_not_in_sync() {
    let (node, behind) = (NodeId::data(1), NodeId::data(2));
    let verdict = refused(node, |observed| {
        let ObservedServer::Data(server) = &mut observed.nodes.get_mut(&behind).unwrap().server else { panic!() };
        let Replication::Replica { link_up, .. } = &mut server.replication else { panic!() };
        *link_up = false;
    });
    assert_eq!(verdict, (vec![RefusalReason::NotInSync { node, behind }], false));
}

#[test]
fn no_sentinel_is_restarted_while_it_elects() {
    let node = NodeId::sentinel(0);
    let verdict = refused(node, |observed| {
        let ObservedServer::Sentinel(server) = &mut observed.nodes.get_mut(&node).unwrap().server else { panic!() };
        server.master.as_mut().unwrap().flags.insert("failover_in_progress".to_owned());
    });
    assert_eq!(verdict, (vec![RefusalReason::Electing { node }], false));
}
