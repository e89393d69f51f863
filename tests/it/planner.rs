//! The planner on hand-made observations: what it does next, and that it says why it does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redoubt::model::desired::{Desired, DesiredLibrary, DesiredNode, DesiredUser, SentinelSettings};
use redoubt::model::observed::{
    DataServer, Observed, ObservedNode, ObservedPod, ObservedServer, ObservedWorkload, Replication, SentinelMaster,
    SentinelServer,
};
use redoubt::model::{Address, LayerIdentity, NodeId, NodeKind, Offset, PodRole};
use redoubt::plan::{Plan, RefusalReason, Step, WaitReason, plan};

pub fn nodes() -> Vec<NodeId> {
    (0..3).map(NodeId::data).chain((0..3).map(NodeId::sentinel)).collect()
}

pub fn address(node: NodeId) -> Address {
    Address(format!("10.0.{}.{}", u8::from(node.kind == NodeKind::Sentinel), node.ordinal))
}

pub fn desired(revision: &str) -> Desired {
    let node = DesiredNode {
        workload_digest: format!("workload-{revision}"),
        restart_revision: revision.to_owned(),
        config_digest: "config".to_owned(),
    };
    Desired {
        layer: LayerIdentity { uid: "uid".into(), namespace: "shop".into(), name: "web".into() },
        generation: 1,
        in_cluster: false,
        paused: false,
        engine: None,
        reads_files: true,
        disruption_needs_approval: false,
        nodes: nodes().into_iter().map(|id| (id, node.clone())).collect(),
        settings: BTreeMap::from([("maxmemory".to_owned(), "100".to_owned())]),
        start_only: BTreeSet::new(),
        users: BTreeMap::new(),
        sentinel_users: BTreeMap::new(),
        libraries: BTreeMap::new(),
        kept_libraries: BTreeSet::new(),
        gathering: false,
        sentinel_settings: SentinelSettings {
            quorum: 2,
            detection: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(15),
            parallel_syncs: 3,
        },
        master_name: "web-uid".to_owned(),
        promotion: None,
    }
}

fn data_server(node: NodeId, primary: NodeId) -> DataServer {
    let replication = if node == primary {
        let others = nodes().into_iter().filter(|other| other.kind == NodeKind::Data && *other != primary);
        Replication::Primary { replicas: others.map(|other| (address(other), Offset(9))).collect() }
    } else {
        Replication::Replica {
            primary: address(primary),
            link_up: true,
            syncing: false,
            priority: 100,
            link_down_seconds: None,
        }
    };
    DataServer {
        run_id: format!("run-{node}"),
        replication,
        offset: Offset(9),
        settings: BTreeMap::from([("maxmemory".to_owned(), "100".to_owned())]),
        users_in_place: BTreeSet::new(),
        users_foreign: BTreeSet::new(),
        libraries: BTreeMap::new(),
        functions: BTreeMap::new(),
        used_memory: 1,
        maxmemory: 100,
        rejected_connections: 0,
        refuses_clients: false,
        persistence_trouble: None,
        cluster: None,
        version: "redis 7.0.15".to_owned(),
    }
}

fn sentinel_server(node: NodeId, primary: NodeId) -> SentinelServer {
    let others =
        |kind, besides| nodes().into_iter().filter(move |other: &NodeId| other.kind == kind && *other != besides);
    SentinelServer {
        run_id: format!("run-{node}"),
        master: Some(SentinelMaster {
            address: address(primary),
            config_epoch: 3,
            flags: BTreeSet::from(["master".to_owned()]),
            quorum: 2,
            detection: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(15),
            parallel_syncs: 3,
            steady_milliseconds: Some(60_000),
            other_sentinels: others(NodeKind::Sentinel, node).map(|id| (format!("id-{id}"), address(id))).collect(),
            replicas: others(NodeKind::Data, primary).map(|id| (address(id), BTreeSet::new())).collect(),
        }),
        users_in_place: BTreeSet::new(),
        users_foreign: BTreeSet::new(),
        tilt: false,
    }
}

/// A layer that is as `desired("old")` wants it.
pub fn converged(primary: NodeId) -> Observed {
    let node = |id: NodeId| ObservedNode {
        address: Some(address(id)),
        workload: Some(ObservedWorkload {
            uid: format!("workload-{id}"),
            workload_digest: "workload-old".to_owned(),
            restart_revision: "old".to_owned(),
            restarts: BTreeMap::new(),
            deleting: false,
        }),
        pod: Some(ObservedPod {
            uid: format!("pod-{id}"),
            restart_revision: "old".to_owned(),
            restarts: BTreeMap::new(),
            config_digest: "config".to_owned(),
            deleting: false,
            ready: true,
            trouble: None,
            kubernetes_node: None,
            zone: None,
            reads: id.kind == NodeKind::Data && id != primary,
            role: Some(match id.kind {
                NodeKind::Sentinel => PodRole::Sentinel,
                NodeKind::Data if id == primary => PodRole::Primary,
                NodeKind::Data => PodRole::Replica,
            }),
        }),
        unlabelled_pod: None,
        ending_claim: None,
        away: None,
        server: match id.kind {
            NodeKind::Data => ObservedServer::Data(Box::new(data_server(id, primary))),
            NodeKind::Sentinel => ObservedServer::Sentinel(Box::new(sentinel_server(id, primary))),
        },
        loads_nothing: false,
        aside: Some(Vec::new()),
    };
    Observed {
        at: 1,
        nodes: nodes().into_iter().map(|id| (id, node(id))).collect(),
        primary_service: Some(primary),
        primary_service_version: Some("1".to_owned()),
        handover: false,
        initialised: true,
        recorded: true,
    }
}

/// Carries out what changes pods and roles, as the world would.
fn carry_out(observed: &mut Observed, step: &Step) {
    match step {
        Step::ApplyWorkload { node, workload_digest, .. } => {
            let workload = observed.nodes.get_mut(node).unwrap().workload.as_mut().unwrap();
            workload.workload_digest.clone_from(workload_digest);
            workload_digest.strip_prefix("workload-").unwrap().clone_into(&mut workload.restart_revision);
        }
        Step::RestartPod { node, .. } => {
            let seen = observed.nodes.get_mut(node).unwrap();
            let revision = seen.workload.as_ref().unwrap().restart_revision.clone();
            let pod = seen.pod.as_mut().unwrap();
            (pod.restart_revision, pod.trouble, pod.ready) = (revision, None, true);
        }
        Step::Switchover { candidates, .. } => {
            let moved = converged(candidates[0]);
            for (id, seen) in &mut observed.nodes {
                seen.server = moved.nodes[id].server.clone();
                let labelled = moved.nodes[id].pod.as_ref().unwrap();
                let pod = seen.pod.as_mut().unwrap();
                (pod.reads, pod.role) = (labelled.reads, labelled.role);
            }
            observed.primary_service = moved.primary_service;
        }
        step => panic!("unexpected: {step:?}"),
    }
}

#[test]
fn a_new_layer_takes_two_batches() {
    let desired = desired("old");
    let mut observed = Observed::default();
    let first = plan(&desired, &observed);
    assert!(first.steps.iter().all(|step| matches!(step, Step::ApplyService { .. })), "{first:?}");
    assert_eq!(first.steps.len(), 6);
    for id in nodes() {
        observed.nodes.insert(id, ObservedNode { address: Some(address(id)), ..ObservedNode::default() });
    }
    let second = plan(&desired, &observed);
    assert!(second.steps.iter().all(|step| matches!(step, Step::ApplyWorkload { .. })), "{second:?}");
    assert_eq!(second.steps.len(), 6);
    assert!(!second.initialised);
}

#[test]
fn a_converged_layer_is_left_alone() {
    let plan = plan(&desired("old"), &converged(NodeId::data(1)));
    assert_eq!((plan.steps, plan.waiting, plan.refused), (vec![], vec![], vec![]));
    assert!(plan.initialised);
    assert_eq!(plan.primaries.first(), Some(NodeId::data(1)));
}

#[test]
fn the_primarys_service_is_pointed_before_all_else_from_the_version_that_was_seen() {
    let mut observed = converged(NodeId::data(1));
    (observed.primary_service, observed.primary_service_version) = (Some(NodeId::data(0)), Some("7".to_owned()));
    observed.nodes.get_mut(&NodeId::data(2)).unwrap().pod.as_mut().unwrap().reads = false;
    let steps = plan(&desired("old"), &observed).steps;
    assert_eq!(steps[0], Step::PointService { node: NodeId::data(1), version: Some("7".to_owned()) });
    assert!(matches!(steps[1..], [Step::LabelPod { reads: Some(true), .. }]), "{steps:?}");
    (observed.primary_service, observed.primary_service_version) = (None, None);
    let steps = plan(&desired("old"), &observed).steps;
    assert_eq!(steps[0], Step::PointService { node: NodeId::data(1), version: None }, "one that is gone is made");
    for id in [0, 1, 2].map(NodeId::sentinel) {
        observed.nodes.get_mut(&id).unwrap().server = ObservedServer::Unknown;
    }
    let steps = plan(&desired("old"), &observed).steps;
    assert!(!steps.iter().any(|step| matches!(step, Step::PointService { .. })), "the primary is in doubt: {steps:?}");
}

#[test]
fn while_the_primary_is_moved_only_clients_are_routed() {
    let mut observed = converged(NodeId::data(0));
    observed.handover = true;
    observed.primary_service = Some(NodeId::data(1));
    let plan = plan(&desired("new"), &observed);
    assert!(matches!(plan.steps[..], [Step::PointService { .. }]), "{plan:?}");
    assert_eq!(plan.waiting, [WaitReason::Handover]);
}

#[test]
fn a_roll_takes_one_node_at_a_time_and_the_primary_last_after_it_was_moved() {
    let desired = desired("new");
    let mut observed = converged(NodeId::data(0));
    let mut restarted = Vec::new();
    let mut moved = 0;
    for _ in 0..40 {
        let next = plan(&desired, &observed);
        let Some(step) = next.steps.first() else { break };
        assert_eq!(next.steps.len(), 1, "{next:?}");
        if let Step::RestartPod { node, .. } = step {
            assert_ne!(next.primaries.first(), Some(*node), "the primary is restarted");
            restarted.push(*node);
        }
        moved += usize::from(matches!(step, Step::Switchover { .. }));
        carry_out(&mut observed, step);
    }
    assert_eq!((restarted.len(), moved), (6, 1));
    assert_eq!(restarted.last(), Some(&NodeId::data(0)));
    assert!(plan(&desired, &observed).steps.is_empty());
}

#[test]
fn a_roll_stops_at_a_node_that_does_not_come_up_and_a_reverted_one_recovers() {
    let mut observed = converged(NodeId::data(0));
    let broken = NodeId::data(1);
    {
        let seen = observed.nodes.get_mut(&broken).unwrap();
        let workload = seen.workload.as_mut().unwrap();
        (workload.restart_revision, workload.workload_digest) = ("bad".to_owned(), "workload-bad".to_owned());
        let pod = seen.pod.as_mut().unwrap();
        (pod.ready, pod.trouble) = (false, Some("ImagePullBackOff".to_owned()));
        pod.restart_revision = "bad".to_owned();
        seen.server = ObservedServer::Unknown;
    }
    let stuck = plan(&desired("bad"), &observed);
    let is_disruption = |step: &Step| matches!(step, Step::RestartPod { .. } | Step::Switchover { .. });
    assert!(!stuck.steps.iter().any(is_disruption), "{stuck:?}");
    assert!(
        stuck.refused.iter().any(|refused| matches!(refused, RefusalReason::AnotherNodeIsDown { .. })),
        "{stuck:?}"
    );
    // Reverted: the template first, then the pod that never came up, and nobody else.
    let reverted = desired("old");
    let mut disturbed = Vec::new();
    for _ in 0..2 {
        let next = plan(&reverted, &observed);
        for step in &next.steps {
            if let Step::RestartPod { node, .. } = step {
                disturbed.push(*node);
            }
            carry_out(&mut observed, step);
        }
    }
    assert_eq!(disturbed, [broken]);
}

/// A layer was deleted and made again with an older engine than wrote its files: no node loaded them, and the right image was declared in vain.
#[test]
fn nodes_that_load_nothing_are_replaced_whatever_the_others_do() {
    let mut observed = converged(NodeId::data(0));
    for (node, seen) in &mut observed.nodes {
        if node.kind == NodeKind::Data {
            seen.pod.as_mut().unwrap().ready = false;
            (seen.server, seen.loads_nothing) = (ObservedServer::Unknown, true);
        } else if let ObservedServer::Sentinel(server) = &mut seen.server {
            server.master = None;
        }
    }
    let is_restarted = |plan: &Plan, node: NodeId| {
        plan.steps.iter().any(|step| matches!(step, Step::RestartPod { node: of, .. } if *of == node))
    };
    let mut restarted = BTreeSet::new();
    for _ in 0..6 {
        let next = plan(&desired("newer"), &observed);
        restarted.extend((0..3).map(NodeId::data).filter(|node| is_restarted(&next, *node)));
        for step in &next.steps {
            carry_out(&mut observed, step);
        }
    }
    assert_eq!(restarted.len(), 3, "{restarted:?}");
    // Of the layer as it is declared nothing is replaced: that would help nothing.
    let mut unchanged = converged(NodeId::data(0));
    let seen = unchanged.nodes.get_mut(&NodeId::data(1)).unwrap();
    seen.pod.as_mut().unwrap().ready = false;
    (seen.server, seen.loads_nothing) = (ObservedServer::Unknown, true);
    assert!(!is_restarted(&plan(&desired("old"), &unchanged), NodeId::data(1)));
}

#[test]
fn a_primary_without_an_in_sync_replica_is_neither_stopped_nor_moved() {
    let mut observed = converged(NodeId::data(0));
    for ordinal in 1..3 {
        let seen = observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap();
        seen.workload.as_mut().unwrap().restart_revision = "new".to_owned();
        seen.workload.as_mut().unwrap().workload_digest = "workload-new".to_owned();
        seen.pod.as_mut().unwrap().restart_revision = "new".to_owned();
        if let ObservedServer::Data(server) = &mut seen.server {
            server.replication = Replication::Replica {
                primary: address(NodeId::data(0)),
                link_up: false,
                syncing: false,
                priority: 100,
                link_down_seconds: Some(1),
            };
        }
    }
    let plan = plan(&desired("new"), &observed);
    assert!(
        !plan.steps.iter().any(|step| matches!(step, Step::Switchover { .. } | Step::RestartPod { .. })),
        "{plan:?}"
    );
    assert!(plan.waiting.contains(&WaitReason::Sync { node: NodeId::data(1) }));
}

/// Unknown is dangerous: whatever single fact is taken away, no pod is restarted and no primary moved that was not before.
#[test]
fn taking_a_fact_away_adds_no_disruption() {
    let desired = desired("new");
    let is_disruption = |step: &&Step| matches!(step, Step::RestartPod { .. } | Step::Switchover { .. });
    let disruptions = |observed: &Observed| plan(&desired, observed).steps.iter().filter(is_disruption).count();
    let whole = converged(NodeId::data(0));
    let before = disruptions(&whole);
    for id in nodes() {
        let mut unknown = whole.clone();
        unknown.nodes.get_mut(&id).unwrap().server = ObservedServer::Unknown;
        assert!(disruptions(&unknown) <= before);
        let found = plan(&desired, &unknown);
        assert!(!found.steps.is_empty() || !found.waiting.is_empty() || !found.refused.is_empty(), "{id}");
    }
}

#[test]
fn a_paused_layer_is_only_looked_at() {
    let paused = Desired { paused: true, ..desired("new") };
    let plan = plan(&paused, &Observed::default());
    assert_eq!((plan.steps, plan.waiting), (vec![], vec![WaitReason::Paused]));
}

/// A use's user and library come and go like any other, on Sentinels too; and a changed policy is one load on the primary.
#[test]
fn users_and_policies_of_uses_come_and_go() {
    let mut wanted = desired("old");
    let user = |digest: &str| DesiredUser { rules: vec!["reset".to_owned(), format!("#{digest}")] };
    wanted.users.insert("ss.shop.web".to_owned(), user("a"));
    wanted.sentinel_users.insert("ss.shop.web".to_owned(), user("a"));
    wanted.libraries.insert("redoubt_sessions".to_owned(), DesiredLibrary { digest: "second".to_owned() });
    let mut seen = converged(NodeId::data(0));
    for (id, node) in &mut seen.nodes {
        match &mut node.server {
            ObservedServer::Data(server) => {
                server.users_foreign.insert("ss.shop.gone".to_owned());
                server.libraries.insert("redoubt_sessions".to_owned(), "first".to_owned());
            }
            ObservedServer::Sentinel(server) => _ = server.users_foreign.insert("ss.shop.gone".to_owned()),
            other => panic!("{id}: {other:?}"),
        }
    }
    let steps = plan(&wanted, &seen).steps;
    for id in nodes() {
        let run_id = format!("run-{id}");
        let set = Step::SetUser { node: id, run_id: run_id.clone(), user: "ss.shop.web".to_owned() };
        let delete = Step::DeleteUser { node: id, run_id, user: "ss.shop.gone".to_owned() };
        assert!(steps.contains(&set) && steps.contains(&delete), "{id}: {steps:?}");
    }
    let (library, digest) = ("redoubt_sessions".to_owned(), "second".to_owned());
    let load = Step::LoadLibrary { node: NodeId::data(0), run_id: "run-redis-0".to_owned(), library, digest };
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::LoadLibrary { .. })).collect::<Vec<_>>(), [&load]);
    assert_eq!(steps.len(), 13, "{steps:?}");

    // Right after a load the next one waits for what else may change.
    wanted.gathering = true;
    let next = plan(&wanted, &seen);
    assert!(next.waiting.contains(&WaitReason::Gathering));
    assert!(!next.steps.iter().any(|step| matches!(step, Step::LoadLibrary { .. })));
}
