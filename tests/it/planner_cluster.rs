//! The planner on hand-made observations of mode Cluster.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use redoubt::model::cluster::{ClusterNodeId, ClusterView, ConfigEpoch, Member, Shard};
use redoubt::model::desired::{Desired, DesiredLibrary};
use redoubt::model::observed::{DataServer, Observed, ObservedServer, Replication};
use redoubt::model::slots::{SLOTS, SlotSet};
use redoubt::model::{NodeId, Offset, PodRole};
use redoubt::plan::lint::lint;
use redoubt::plan::{Plan, RefusalReason, Step, WaitReason, plan};

use super::planner::{address, converged, desired};

/// Three shards of two nodes each; the first of each is the primary.
fn nodes() -> [NodeId; 6] {
    [0, 1, 10, 11, 20, 21].map(NodeId::data)
}

fn wanted(revision: &str) -> Desired {
    let one = desired(revision);
    let node = one.nodes[&NodeId::data(0)].clone();
    Desired { in_cluster: true, nodes: nodes().map(|id| (id, node.clone())).into(), ..one }
}

fn id(node: NodeId) -> ClusterNodeId {
    ClusterNodeId::parse(&format!("{:040x}", node.ordinal)).unwrap()
}

fn primary(node: NodeId) -> NodeId {
    Shard::of(node).unwrap().node(0)
}

fn part(shard: Shard) -> SlotSet {
    let before = SlotSet::all().lowest(SLOTS / 3 * shard.0);
    let rest = SlotSet::all().difference(&before);
    if shard == Shard(2) { rest } else { rest.lowest(SLOTS / 3) }
}

/// What each server believes; `formed`: the slots have their owners.
fn members(formed: bool) -> BTreeMap<ClusterNodeId, Member> {
    let member = |node: NodeId| {
        let leads = primary(node) == node;
        let shard = Shard::of(node).unwrap();
        Member {
            address: Some(address(node)),
            primary: (!leads).then(|| id(primary(node))),
            flags: BTreeSet::new(),
            epoch: ConfigEpoch(u64::from(shard.0) + 1),
            slots: if leads && formed { part(shard) } else { SlotSet::default() },
        }
    };
    nodes().map(|node| (id(node), member(node))).into()
}

fn seen(formed: bool) -> Observed {
    let template = converged(NodeId::data(0));
    let one = |node: NodeId| {
        let leads = primary(node) == node;
        let mut seen = template.nodes[&NodeId::data(u16::from(!leads))].clone();
        seen.address = Some(address(node));
        let workload = seen.workload.as_mut().unwrap();
        workload.uid = format!("workload-{node}");
        let pod = seen.pod.as_mut().unwrap();
        pod.uid = format!("pod-{node}");
        (pod.reads, pod.role) = (!leads, Some(if leads { PodRole::Primary } else { PodRole::Replica }));
        let replica = address(Shard::of(node).unwrap().node(1));
        let ObservedServer::Data(server) = &mut seen.server else { unreachable!() };
        server.run_id = format!("run-{node}");
        server.replication = if leads {
            Replication::Primary { replicas: [(replica, Offset(9))].into() }
        } else {
            Replication::Replica {
                primary: address(primary(node)),
                link_up: true,
                syncing: false,
                priority: 100,
                link_down_seconds: None,
            }
        };
        server.cluster = Some(ClusterView {
            own: id(node),
            members: members(formed),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            serves: formed,
            current_epoch: ConfigEpoch(3),
        });
        (node, seen)
    };
    Observed {
        nodes: nodes().map(one).into(),
        primary_service: None,
        initialised: formed,
        recorded: formed,
        ..template
    }
}

fn server(observed: &mut Observed, node: NodeId) -> &mut DataServer {
    match &mut observed.nodes.get_mut(&node).unwrap().server {
        ObservedServer::Data(server) => server,
        other => panic!("{other:?}"),
    }
}

/// Plans, and checks that the plan makes sense by itself.
fn planned(desired: &Desired, observed: &Observed) -> Plan {
    let plan = plan(desired, observed);
    assert_eq!(lint(desired, &plan), Vec::<String>::new(), "{plan:#?}");
    plan
}

const OWNER: NodeId = NodeId::data(0);
const REPLICA: NodeId = NodeId::data(1);

#[test]
fn a_cluster_that_is_as_declared_is_left_alone() {
    let plan = planned(&wanted("old"), &seen(true));
    assert_eq!((plan.steps, plan.waiting, plan.refused), (vec![], vec![], vec![]));
    assert_eq!(plan.primaries.nodes().collect::<Vec<_>>(), [0, 10, 20].map(NodeId::data));
}

#[test]
fn slots_are_given_away_once_all_know_each_other_and_functions_are_there() {
    let observed = seen(false);
    let plan = planned(&wanted("old"), &observed);
    let given: Vec<(NodeId, u16)> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::AddSlots { node, slots, .. } => (*node, slots.count()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(given, [(0, 5_462), (10, 5_461), (20, 5_461)].map(|(node, count)| (NodeId::data(node), count)));

    let library = DesiredLibrary { digest: "d".to_owned() };
    let with_library = Desired { libraries: [("redoubt".to_owned(), library)].into(), ..wanted("old") };
    let loads = planned(&with_library, &observed);
    assert_eq!(loads.steps.iter().filter(|step| matches!(step, Step::LoadLibrary { .. })).count(), 3);
    assert!(!loads.steps.iter().any(|step| matches!(step, Step::AddSlots { .. })), "{loads:?}");

    let mut unmet = seen(false);
    server(&mut unmet, REPLICA).cluster.as_mut().unwrap().members.remove(&id(OWNER));
    let waits = planned(&wanted("old"), &unmet);
    assert_eq!(waits.steps, []);
    assert!(waits.waiting.iter().any(|what| matches!(what, WaitReason::Agreement { .. })), "{:?}", waits.waiting);

    let mut silent = seen(false);
    silent.nodes.get_mut(&REPLICA).unwrap().server = ObservedServer::Unknown;
    let waits = planned(&wanted("old"), &silent);
    assert!(!waits.steps.iter().any(|step| matches!(step, Step::AddSlots { .. })), "it may own them");
}

#[test]
fn slots_that_are_lost_are_given_to_no_other_server() {
    let mut observed = seen(true);
    for node in nodes() {
        server(&mut observed, node).cluster.as_mut().unwrap().members.get_mut(&id(OWNER)).unwrap().slots =
            SlotSet::default();
    }
    let plan = planned(&wanted("old"), &observed);
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::AddSlots { .. })), "{:?}", plan.steps);
    assert!(plan.waiting.contains(&WaitReason::SlotsLost { slots: part(Shard(0)) }), "{:?}", plan.waiting);
    assert!(plan.waiting.contains(&WaitReason::Owner { shard: Shard(0) }), "{:?}", plan.waiting);
}

/// Adds a server that is no node's to what each believes.
fn with_stranger(slots: &SlotSet) -> Observed {
    let mut observed = seen(true);
    let gone =
        Member { address: None, primary: None, flags: BTreeSet::new(), epoch: ConfigEpoch(9), slots: slots.clone() };
    for node in nodes() {
        let members = &mut server(&mut observed, node).cluster.as_mut().unwrap().members;
        members.insert(ClusterNodeId::parse(&"e".repeat(40)).unwrap(), gone.clone());
        let owner = members.get_mut(&id(OWNER)).unwrap();
        owner.slots = owner.slots.difference(slots);
    }
    observed
}

#[test]
fn what_no_node_has_is_forgotten_by_all_at_once_and_never_one_that_owns_slots() {
    let plan = planned(&wanted("old"), &with_stranger(&SlotSet::default()));
    let told: Vec<NodeId> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::ForgetMember { node, .. } => *node,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, nodes());
    let owns = planned(&wanted("old"), &with_stranger(&part(Shard(0)).lowest(7)));
    assert_eq!(owns.steps, []);
    assert!(
        owns.waiting.iter().any(|what| matches!(what, WaitReason::Stranger { slots: 7, .. })),
        "{:?}",
        owns.waiting
    );
    // A node that does not answer may have come back under that name.
    let mut silent = with_stranger(&SlotSet::default());
    silent.nodes.get_mut(&REPLICA).unwrap().server = ObservedServer::Unknown;
    assert_eq!(planned(&wanted("old"), &silent).steps, []);
}

#[test]
fn a_roll_takes_replicas_first_one_node_at_a_time_and_waits_for_agreement() {
    let desired = wanted("new");
    let mut observed = seen(true);
    let mut restarted = Vec::new();
    for _ in 0..40 {
        let plan = planned(&desired, &observed);
        for step in &plan.steps {
            match step {
                Step::ApplyWorkload { node, workload_digest, .. } => {
                    let workload = observed.nodes.get_mut(node).unwrap().workload.as_mut().unwrap();
                    workload.workload_digest.clone_from(workload_digest);
                    "new".clone_into(&mut workload.restart_revision);
                }
                Step::RestartPod { node, .. } => {
                    "new".clone_into(&mut observed.nodes.get_mut(node).unwrap().pod.as_mut().unwrap().restart_revision);
                    restarted.push(*node);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(restarted, [1, 11, 21, 0, 10, 20].map(NodeId::data));

    let mut unsettled = seen(true);
    server(&mut unsettled, REPLICA).cluster.as_mut().unwrap().serves = false;
    let applied = |observed: &mut Observed| {
        for seen in observed.nodes.values_mut() {
            "new".clone_into(&mut seen.workload.as_mut().unwrap().restart_revision);
            "workload-new".clone_into(&mut seen.workload.as_mut().unwrap().workload_digest);
        }
    };
    applied(&mut unsettled);
    let held = planned(&desired, &unsettled);
    assert!(held.refused.iter().any(|why| matches!(why, RefusalReason::Unsettled { .. })), "{:?}", held.refused);
    assert_eq!(held.steps, []);
}

/// What is made unknown or wrong in an observation.
#[derive(Clone, Debug)]
enum Doubt {
    Silent(NodeId),
    NoView(NodeId),
    NotServing(NodeId),
    Forgets(NodeId, NodeId),
    OldSlots(NodeId, NodeId),
}

fn any_doubt() -> impl Strategy<Value = Doubt> {
    let node = || prop::sample::select(nodes().to_vec());
    prop_oneof![
        node().prop_map(Doubt::Silent),
        node().prop_map(Doubt::NoView),
        node().prop_map(Doubt::NotServing),
        (node(), node()).prop_map(|(viewer, of)| Doubt::Forgets(viewer, of)),
        (node(), node()).prop_map(|(viewer, of)| Doubt::OldSlots(viewer, of)),
    ]
}

fn doubt(observed: &mut Observed, doubt: &Doubt) {
    let view = |observed: &mut Observed, node: NodeId, change: &dyn Fn(&mut ClusterView)| {
        if let ObservedServer::Data(server) = &mut observed.nodes.get_mut(&node).unwrap().server
            && let Some(view) = &mut server.cluster
        {
            change(view);
        }
    };
    match doubt {
        Doubt::Silent(node) => observed.nodes.get_mut(node).unwrap().server = ObservedServer::Unknown,
        Doubt::NoView(node) => {
            if let ObservedServer::Data(server) = &mut observed.nodes.get_mut(node).unwrap().server {
                server.cluster = None;
            }
        }
        Doubt::NotServing(node) => view(observed, *node, &|view| view.serves = false),
        Doubt::Forgets(viewer, of) if viewer != of => {
            view(observed, *viewer, &|view| _ = view.members.remove(&id(*of)));
        }
        Doubt::Forgets(..) => {}
        Doubt::OldSlots(viewer, of) => view(observed, *viewer, &|view| {
            if let Some(member) = view.members.get_mut(&id(*of)).filter(|member| !member.slots.is_empty()) {
                member.slots = member.slots.highest(100);
                member.epoch = ConfigEpoch(0);
            }
        }),
    }
}

proptest! {
    /// Whatever is not known or not agreed: no slot is given away in a Cluster that was whole, no server is forgotten that is a node's, no
    /// node is disturbed, and it is said what is waited for.
    #[test]
    fn doubt_never_leads_to_a_disturbance(doubts in prop::collection::vec(any_doubt(), 1..4)) {
        let mut observed = seen(true);
        for what in &doubts {
            doubt(&mut observed, what);
        }
        let changed = observed != seen(true);
        let plan = planned(&wanted("new"), &observed);
        for step in &plan.steps {
            prop_assert!(!matches!(step, Step::AddSlots { .. } | Step::ForgetMember { .. }), "{step:?}");
            prop_assert!(!step.is_disruptive() || !changed, "{step:?} after {doubts:?}");
        }
        let at_rest = planned(&wanted("old"), &observed);
        prop_assert!(!changed || !at_rest.waiting.is_empty() || !at_rest.steps.is_empty(), "{doubts:?}");
    }
}
