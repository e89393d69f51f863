//! The planner's rules on single facts: forgetting, mending, removing, and what running servers are told.

use std::collections::{BTreeMap, BTreeSet};

use redoubt::model::desired::Desired;
use redoubt::model::engine::EngineVersion;
use redoubt::model::observed::{
    DataServer, Observed, ObservedNode, ObservedServer, Replication, SentinelMaster, UnavailableNode,
};
use redoubt::model::{Address, NodeId, Offset};
use redoubt::plan::reason::ApplyReason;
use redoubt::plan::{RefusalReason, Step, WaitReason, plan};

use crate::planner::{address, converged, desired, nodes};

fn data_of(observed: &mut Observed, ordinal: u16) -> &mut DataServer {
    match &mut observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap().server {
        ObservedServer::Data(server) => server,
        server => panic!("{server:?}"),
    }
}

pub fn masters_of(observed: &mut Observed) -> Vec<&mut SentinelMaster> {
    let servers = observed.nodes.values_mut().map(|seen| &mut seen.server);
    servers
        .filter_map(|server| match server {
            ObservedServer::Sentinel(server) => server.master.as_mut(),
            _ => None,
        })
        .collect()
}

/// Four data nodes were declared; the last is gone but for its Service, and the Sentinels remember it.
fn with_a_remembered_address() -> Observed {
    let mut observed = converged(NodeId::data(0));
    let gone = NodeId::data(3);
    observed.nodes.insert(gone, ObservedNode { address: Some(address(gone)), ..ObservedNode::default() });
    for master in masters_of(&mut observed) {
        master.replicas.insert(address(gone), BTreeSet::from(["s_down".to_owned()]));
    }
    observed
}

#[test]
fn an_address_that_no_node_has_is_forgotten_by_one_sentinel_at_a_time_and_its_service_goes_last() {
    let desired = desired("old");
    let mut observed = with_a_remembered_address();
    for ordinal in 0..3 {
        let next = plan(&desired, &observed);
        let [Step::ResetSentinel { node, .. }] = next.steps.as_slice() else { panic!("{next:?}") };
        assert_eq!(*node, NodeId::sentinel(ordinal));
        // It forgets, and finds the others again.
        let mut masters = masters_of(&mut observed);
        let master = &mut *masters[usize::from(ordinal)];
        master.replicas.remove(&address(NodeId::data(3)));
        master.steady_milliseconds = Some(29_999);
        if ordinal < 2 {
            assert_eq!(plan(&desired, &observed).steps, [], "the next one has to wait");
        }
        masters_of(&mut observed)[usize::from(ordinal)].steady_milliseconds = Some(30_000);
    }
    let last = plan(&desired, &observed).steps;
    assert_eq!(last, [Step::RemoveNode { node: NodeId::data(3), workload_uid: None, config_epoch: None }]);
}

#[test]
fn nothing_is_forgotten_while_any_fact_speaks_against_it() {
    let desired = desired("old");
    let is_reset = |observed: &Observed| {
        plan(&desired, observed)
            .steps
            .iter()
            .any(|step| matches!(step, Step::ResetSentinel { .. } | Step::RemoveNode { .. }))
    };
    assert!(is_reset(&with_a_remembered_address()));
    let spoilt: [fn(&mut Observed); 6] = [
        |observed| {
            masters_of(observed)[2].flags.insert("failover_in_progress".to_owned());
        },
        |observed| masters_of(observed)[2].steady_milliseconds = None,
        |observed| drop(masters_of(observed)[2].replicas.remove(&address(NodeId::data(1)))),
        |observed| observed.nodes.get_mut(&NodeId::sentinel(2)).unwrap().server = ObservedServer::Unknown,
        |observed| observed.nodes.get_mut(&NodeId::data(2)).unwrap().server = ObservedServer::Unknown,
        |observed| {
            let Replication::Primary { replicas } = &mut data_of(observed, 0).replication else { panic!() };
            replicas.insert(address(NodeId::data(3)), Offset(9));
        },
    ];
    for spoil in spoilt {
        let mut observed = with_a_remembered_address();
        spoil(&mut observed);
        assert!(!is_reset(&observed), "{observed:?}");
    }
}

#[test]
fn a_count_that_is_right_with_a_wrong_address_is_no_full_view() {
    let mut observed = converged(NodeId::data(0));
    let known = &mut masters_of(&mut observed)[0].replicas;
    known.remove(&address(NodeId::data(1)));
    known.insert(Address("10.0.9.9".to_owned()), BTreeSet::new());
    let plan = plan(&desired("old"), &observed);
    let node = NodeId::sentinel(0);
    assert_eq!(plan.waiting, [WaitReason::SentinelView { node }, WaitReason::Forgetting { node }]);
}

#[test]
fn a_failover_is_told_from_a_missing_primary() {
    let mut observed = converged(NodeId::data(0));
    for master in masters_of(&mut observed) {
        master.flags.insert("failover_in_progress".to_owned());
    }
    assert_eq!(plan(&desired("old"), &observed).waiting, [WaitReason::Failover]);
    observed.nodes.get_mut(&NodeId::data(0)).unwrap().server = ObservedServer::Unknown;
    let waiting = plan(&desired("old"), &observed).waiting;
    assert!(waiting.contains(&WaitReason::Failover) && !waiting.contains(&WaitReason::Primary), "{waiting:?}");
}

#[test]
fn a_replica_of_a_wrong_address_is_mended_only_after_the_sentinels_had_their_chance() {
    let desired = desired("old");
    let follow = |observed: &mut Observed, seconds| {
        data_of(observed, 1).replication = Replication::Replica {
            primary: Address("10.0.9.9".to_owned()),
            link_up: false,
            syncing: false,
            priority: 100,
            link_down_seconds: seconds,
        };
    };
    let mended = |observed: &Observed| plan(&desired, observed).steps;
    let mut observed = converged(NodeId::data(0));
    follow(&mut observed, Some(30));
    let expected = Step::Repoint {
        node: NodeId::data(1),
        run_id: "run-redis-1".to_owned(),
        primary: address(NodeId::data(0)),
        config_epoch: 3,
    };
    assert_eq!(mended(&observed), [expected]);
    let mut early = observed.clone();
    masters_of(&mut early)[1].steady_milliseconds = Some(29_999);
    assert_eq!(mended(&early), []);
    let mut electing = observed.clone();
    masters_of(&mut electing)[1].flags.insert("failover_in_progress".to_owned());
    assert_eq!(mended(&electing), []);
    for seconds in [Some(29), None] {
        follow(&mut observed, seconds);
        assert_eq!(mended(&observed), []);
    }
}

#[test]
fn what_redis_takes_only_at_start_is_never_told_to_a_running_server() {
    let mut desired = desired("old");
    desired.settings.insert("databases".to_owned(), "1".to_owned());
    let mut observed = converged(NodeId::data(0));
    data_of(&mut observed, 1).settings.insert("databases".to_owned(), "16".to_owned());
    assert!(matches!(plan(&desired, &observed).steps.as_slice(), [Step::SetSettings { .. }]));
    desired.start_only.insert("databases".to_owned());
    assert_eq!(plan(&desired, &observed).steps, []);
}

#[test]
fn memory_that_a_larger_pod_has_is_not_given_to_the_smaller_one() {
    let mut desired = desired("new");
    desired.settings.insert("maxmemory".to_owned(), "200".to_owned());
    desired.disruption_needs_approval = true;
    let observed = converged(NodeId::data(0));
    assert_eq!(plan(&desired, &observed).steps, []);
    for node in desired.nodes.values_mut() {
        node.restart_revision = "old".to_owned();
        node.workload_digest = "workload-old".to_owned();
    }
    assert_eq!(plan(&desired, &observed).steps.len(), 3);
}

#[test]
fn a_pod_that_is_being_deleted_is_waited_for_and_holds_the_roll() {
    let mut observed = converged(NodeId::data(0));
    observed.nodes.get_mut(&NodeId::data(2)).unwrap().pod.as_mut().unwrap().deleting = true;
    let resting = plan(&desired("old"), &observed);
    assert_eq!(resting.waiting, [WaitReason::Termination { node: NodeId::data(2) }]);
    let rolling = plan(&desired("new"), &observed);
    assert_eq!(rolling.steps, []);
    let down = NodeId::data(2);
    assert_eq!(rolling.refused, [RefusalReason::AnotherNodeIsDown { node: NodeId::data(1), down }]);
}

#[test]
fn a_workload_edited_by_hand_in_a_roll_is_mended_before_its_pod_is_restarted() {
    let mut observed = converged(NodeId::data(0));
    let workload = observed.nodes.get_mut(&NodeId::data(1)).unwrap().workload.as_mut().unwrap();
    (workload.restart_revision, workload.workload_digest) = ("new".to_owned(), String::new());
    let steps = plan(&desired("new"), &observed).steps;
    assert!(matches!(steps.as_slice(), [Step::ApplyWorkload { reason: ApplyReason::Drift, .. }]), "{steps:?}");
}

#[test]
fn a_roll_that_was_taken_back_leaves_no_wrong_template_behind() {
    let mut observed = converged(NodeId::data(0));
    let workload = observed.nodes.get_mut(&NodeId::data(1)).unwrap().workload.as_mut().unwrap();
    (workload.restart_revision, workload.workload_digest) = ("bad".to_owned(), "workload-bad".to_owned());
    let mut desired = desired("old");
    desired.disruption_needs_approval = true;
    let steps = plan(&desired, &observed).steps;
    assert!(matches!(steps.as_slice(), [Step::ApplyWorkload { reason: ApplyReason::Drift, .. }]), "{steps:?}");
}

/// Data nodes 2 and 3 of four are no longer declared, and 3 is primary.
fn scaled_in(primary: u16) -> (Desired, Observed) {
    let mut wanted = desired("old");
    wanted.nodes.remove(&NodeId::data(2));
    (wanted, converged(NodeId::data(primary)))
}

#[test]
fn a_primary_that_is_to_be_removed_is_moved_first_and_others_are_removed_before_a_move() {
    let (desired_two, observed) = scaled_in(2);
    let steps = plan(&desired_two, &observed).steps;
    let to: Vec<NodeId> = (0..2).map(NodeId::data).collect();
    let [Step::Switchover { from, candidates, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((*from, candidates), (NodeId::data(2), &to));
    // Primary on a declared node of an old revision: the undeclared replica could be elected, so it goes first.
    let (mut desired_two, observed) = scaled_in(0);
    desired_two.nodes.get_mut(&NodeId::data(0)).unwrap().restart_revision = "new".to_owned();
    let steps = plan(&desired_two, &observed).steps;
    assert!(
        matches!(steps.as_slice(), [Step::RemoveNode { node, workload_uid: Some(_), .. }] if *node == NodeId::data(2)),
        "{steps:?}"
    );
}

#[test]
fn a_server_that_only_believes_it_is_primary_does_not_hold_its_removal_up() {
    let (desired, mut observed) = scaled_in(0);
    data_of(&mut observed, 2).replication = Replication::Primary { replicas: BTreeMap::new() };
    let mut steps = plan(&desired, &observed).steps;
    steps.retain(|step| !matches!(step, Step::LabelPod { .. }));
    assert!(matches!(steps.as_slice(), [Step::RemoveNode { workload_uid: Some(_), .. }]), "{steps:?}");
}

#[test]
fn no_sentinel_is_restarted_if_those_left_are_no_majority_of_those_remembered() {
    let mut wanted = desired("old");
    wanted.nodes.get_mut(&NodeId::sentinel(0)).unwrap().restart_revision = "new".to_owned();
    let mut observed = converged(NodeId::data(0));
    assert!(matches!(plan(&wanted, &observed).steps.as_slice(), [Step::ApplyWorkload { .. }]));
    for master in masters_of(&mut observed) {
        master.steady_milliseconds = Some(0);
        for gone in 7..9 {
            master.other_sentinels.insert(format!("id-{gone}"), address(NodeId::sentinel(gone)));
        }
    }
    let stuck = plan(&wanted, &observed);
    assert_eq!(stuck.refused, [RefusalReason::NoSentinelMajority { node: NodeId::sentinel(0) }]);
    assert_eq!(stuck.steps, []);
}

/// A layer of which these nodes have had no pod for so long.
fn without_pods(nodes: &[NodeId], seconds: u64) -> Observed {
    let mut observed = converged(NodeId::data(0));
    for node in nodes {
        let seen = observed.nodes.get_mut(node).unwrap();
        (seen.pod, seen.server) = (None, ObservedServer::Unknown);
        seen.away = Some(UnavailableNode { seconds, ..UnavailableNode::default() });
    }
    observed
}

#[test]
fn a_corrected_template_is_applied_to_a_node_that_has_no_pod_whatever_else_is_going_on() {
    let mut desired = desired("new");
    desired.disruption_needs_approval = true;
    let all = nodes();
    for missing in [&all[..], &all[2..], &[NodeId::data(0)][..], &[NodeId::data(2), NodeId::sentinel(1)][..]] {
        let applied: Vec<NodeId> = plan(&desired, &without_pods(missing, 5))
            .steps
            .iter()
            .filter(|step| matches!(step, Step::ApplyWorkload { reason: ApplyReason::NoPod, .. }))
            .map(Step::node)
            .collect();
        assert_eq!(applied, missing);
    }
}

#[test]
fn a_pod_that_was_evicted_a_moment_ago_comes_back_as_it_was() {
    let mut desired = desired("new");
    desired.disruption_needs_approval = true;
    let plan = plan(&desired, &without_pods(&[NodeId::data(1)], 4));
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::ApplyWorkload { .. })), "{plan:?}");
}

fn refused_of(desired: &Desired, observed: &Observed) -> Vec<RefusalReason> {
    let plan = plan(desired, observed);
    let is_restart =
        |step: &Step| matches!(step, Step::RestartPod { .. } | Step::Switchover { .. } | Step::ApplyWorkload { .. });
    assert!(plan.refused.is_empty() || !plan.steps.iter().any(is_restart), "{plan:?}");
    plan.refused
}

#[test]
fn an_engine_that_cannot_read_the_primarys_files_is_not_rolled_out() {
    let with = |image: &str| Desired { engine: EngineVersion::of_image(image), ..desired("new") };
    let mut observed = converged(NodeId::data(0));
    for ordinal in 0..3 {
        "redis 8.0.2".clone_into(&mut data_of(&mut observed, ordinal).version);
    }
    let node = NodeId::data(0);
    let (running, wanted) = ("redis 8.0.2".to_owned(), "redis 7.0".to_owned());
    let older = RefusalReason::OlderEngine { node, running, wanted };
    assert_eq!(refused_of(&with("redis:7.0"), &observed), std::slice::from_ref(&older));
    assert_eq!(refused_of(&with("valkey:8.1"), &observed).len(), 1);
    for image in ["redis:8.0", "redis:latest", "redis:99.0"] {
        assert_eq!(refused_of(&with(image), &observed), [], "{image}");
    }
    // A node without a pod is no way round it.
    let mut missing = observed.clone();
    let seen = missing.nodes.get_mut(&NodeId::data(1)).unwrap();
    (seen.pod, seen.server) = (None, ObservedServer::Unknown);
    seen.away = Some(UnavailableNode { seconds: 60, ..UnavailableNode::default() });
    assert_eq!(refused_of(&with("redis:7.0"), &missing), [older]);
    // A step that is taken back: one replica has newer files, and the primary has all of the data.
    for ordinal in [0, 2] {
        "redis 7.0.15".clone_into(&mut data_of(&mut observed, ordinal).version);
    }
    assert_eq!(refused_of(&with("redis:7.0"), &observed), []);
}

/// The first replica of a roll shows it, and the roll ends there.
#[test]
fn an_engine_whose_image_does_not_say_its_version_is_known_once_a_server_of_it_answers() {
    let wanted = Desired { engine: EngineVersion::of_image("engine@sha256:0"), ..desired("new") };
    let mut observed = converged(NodeId::data(0));
    for ordinal in 0..3 {
        "redis 8.0.2".clone_into(&mut data_of(&mut observed, ordinal).version);
    }
    assert_eq!(refused_of(&wanted, &observed), [], "nothing is known of it");
    let tried = NodeId::data(1);
    let seen = observed.nodes.get_mut(&tried).unwrap();
    "new".clone_into(&mut seen.pod.as_mut().unwrap().restart_revision);
    let workload = seen.workload.as_mut().unwrap();
    (workload.restart_revision, workload.workload_digest) = ("new".to_owned(), "workload-new".to_owned());
    for (version, is_refused) in [("redis 7.0.15", true), ("valkey 8.1.1", true), ("redis 8.0.4", false), ("", false)] {
        version.clone_into(&mut data_of(&mut observed, 1).version);
        let refused = refused_of(&wanted, &observed);
        let is_older =
            |it: &RefusalReason| matches!(it, RefusalReason::OlderEngine { running, .. } if running == "redis 8.0.2");
        assert_eq!(refused.iter().any(is_older), is_refused, "{version}: {refused:?}");
    }
    "redis 7.0.15".clone_into(&mut data_of(&mut observed, 1).version);
    let forgetful = Desired { reads_files: false, ..wanted };
    assert_eq!(refused_of(&forgetful, &observed), [], "a single server that keeps nothing meets no files");
}

#[test]
fn memory_that_cannot_hold_the_data_is_neither_rolled_out_nor_set() {
    let mut observed = converged(NodeId::data(0));
    for ordinal in 0..3 {
        let server = data_of(&mut observed, ordinal);
        (server.maxmemory, server.used_memory) = (300 << 20, 220 << 20);
        server.settings.insert("maxmemory".to_owned(), server.maxmemory.to_string());
    }
    let with = |revision: &str, mebibytes: u64, policy: &str| {
        let mut desired = desired(revision);
        desired.settings.insert("maxmemory".to_owned(), (mebibytes << 20).to_string());
        desired.settings.insert("maxmemory-policy".to_owned(), policy.to_owned());
        for ordinal in 0..3 {
            desired.nodes.get_mut(&NodeId::data(ordinal)).unwrap().workload_digest = format!("workload-{revision}");
        }
        desired
    };
    let held = |mebibytes: u64| RefusalReason::MemoryBelowData {
        node: NodeId::data(0),
        held: 220 << 20,
        maxmemory: mebibytes << 20,
    };
    assert_eq!(refused_of(&with("new", 150, "noeviction"), &observed), [held(150)]);
    assert_eq!(refused_of(&with("new", 225, "noeviction"), &observed), [held(225)], "no room beside the data");
    assert_eq!(refused_of(&with("new", 150, "allkeys-lfu"), &observed), [held(150)], "a pod cannot load it");
    assert_eq!(refused_of(&with("new", 250, "noeviction"), &observed), []);
    // Set live: the same, but for one that evicts any key.
    let is_set = |desired: &Desired| {
        plan(desired, &observed)
            .steps
            .iter()
            .any(|step| matches!(step, Step::SetSettings { changes, .. } if changes.contains_key("maxmemory")))
    };
    assert_eq!(refused_of(&with("old", 150, "noeviction"), &observed), [held(150)]);
    assert!(!is_set(&with("old", 150, "noeviction")));
    assert_eq!(refused_of(&with("old", 150, "allkeys-lfu"), &observed), []);
    assert!(is_set(&with("old", 150, "allkeys-lfu")) && is_set(&with("old", 250, "noeviction")));
    // A full server is changed otherwise as before.
    assert_eq!(refused_of(&with("new", 300, "noeviction"), &observed), []);
}

/// `kubectl rollout restart`, or the annotation of the layer: on the templates, and on each pod that was made since.
#[test]
fn a_restart_that_a_person_asks_for_is_an_orderly_roll_and_needs_no_further_approval() {
    let restarts = BTreeMap::from([("kubectl.kubernetes.io/restartedAt".to_owned(), "now".to_owned())]);
    let mut observed = converged(NodeId::data(0));
    for node in [NodeId::data(0), NodeId::data(2)] {
        observed.nodes.get_mut(&node).unwrap().workload.as_mut().unwrap().restarts.clone_from(&restarts);
    }
    let mut desired = desired("old");
    desired.disruption_needs_approval = true;
    let steps = plan(&desired, &observed).steps;
    assert!(matches!(steps.as_slice(), [Step::RestartPod { node, .. }] if *node == NodeId::data(2)), "{steps:?}");
    observed.nodes.get_mut(&NodeId::data(2)).unwrap().pod.as_mut().unwrap().restarts.clone_from(&restarts);
    let steps = plan(&desired, &observed).steps;
    assert!(matches!(steps.as_slice(), [Step::Switchover { from, .. }] if *from == NodeId::data(0)), "{steps:?}");
    // One that is taken back restarts nothing, and what else needs a roll waits for its approval.
    let workload = observed.nodes.get_mut(&NodeId::data(0)).unwrap().workload.as_mut().unwrap();
    workload.restarts.clear();
    observed.nodes.get_mut(&NodeId::data(0)).unwrap().pod.as_mut().unwrap().restarts = restarts;
    assert_eq!(plan(&desired, &observed).steps, []);
    desired.nodes.get_mut(&NodeId::data(1)).unwrap().restart_revision = "new".to_owned();
    assert_eq!(plan(&desired, &observed).waiting, [WaitReason::Approval]);
}
