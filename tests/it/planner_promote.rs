//! A primary that a person asks for: moved once, and only while nothing speaks against it.

use redoubt::model::desired::{Desired, PromotionRequest};
use redoubt::model::observed::{Observed, ObservedServer, Replication};
use redoubt::model::{NodeId, NodeKind, PodRole};
use redoubt::plan::promotion::{Impossible, PromotionBlocker};
use redoubt::plan::reason::RestartReason;
use redoubt::plan::{Plan, Promotion, RefusalReason, Step, WaitReason, plan, route};

use crate::planner::{converged, desired};

const ASKED: NodeId = NodeId::data(2);

fn asking(node: Option<NodeId>) -> Desired {
    Desired { promotion: Some(PromotionRequest { node, failed: None }), ..desired("old") }
}

fn planned(desired: &Desired, observed: &Observed) -> Plan {
    let plan = plan(desired, observed);
    assert_eq!(redoubt::plan::lint::lint(desired, &plan), Vec::<String>::new());
    plan
}

fn moves(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Switchover { .. }))
}

#[test]
fn a_primary_that_is_asked_for_is_moved_to_and_that_is_the_answer() {
    let seen = converged(NodeId::data(0));
    let next = planned(&asking(Some(ASKED)), &seen);
    let [Step::Switchover { from, to, candidates, reason, .. }] = next.steps.as_slice() else { panic!("{next:?}") };
    assert_eq!((*from, *to, *reason), (NodeId::data(0), Some(ASKED), RestartReason::Requested));
    assert_eq!(candidates, &[NodeId::data(1), ASKED], "every replica that could be elected is in the know");
    assert_eq!(next.promotion, Some(Promotion::Begins));
    let done = planned(&asking(Some(ASKED)), &converged(ASKED));
    assert_eq!((done.steps, done.promotion), (vec![], Some(Promotion::Done)));
    let unasked = planned(&desired("old"), &seen);
    assert_eq!((unasked.steps, unasked.promotion), (vec![], None));
}

fn without_sentinels(mut desired: Desired) -> Desired {
    desired.nodes.retain(|node, _| node.kind == NodeKind::Data);
    desired
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_moved() {
    let seen = converged(NodeId::data(0));
    for (what, desired, why) in [
        ("an unknown name", asking(None), Impossible::NoDataNode),
        ("a Sentinel", asking(Some(NodeId::sentinel(1))), Impossible::NoDataNode),
        ("a node that is not declared", asking(Some(NodeId::data(7))), Impossible::NoDataNode),
        ("one node", without_sentinels(asking(Some(ASKED))), Impossible::Standalone),
    ] {
        let next = plan(&desired, &seen);
        assert_eq!(next.promotion, Some(Promotion::Impossible(why)), "{what}");
        assert!(!moves(&next), "{what}: {next:?}");
    }
}

#[test]
fn what_is_unsafe_waits_and_says_for_what() {
    let held = |what: &str, desired: Desired, spoil: &dyn Fn(&mut Observed)| {
        let mut seen = converged(NodeId::data(0));
        spoil(&mut seen);
        let next = planned(&desired, &seen);
        assert!(!moves(&next), "{what}: {next:?}");
        match next.promotion {
            Some(Promotion::Held(held)) => held,
            other => panic!("{what}: {other:?}"),
        }
    };
    let asked = || asking(Some(ASKED));
    let server = |seen: &mut Observed, node| match &mut seen.nodes.get_mut(&node).unwrap().server {
        ObservedServer::Data(server) => server.clone(),
        other => panic!("{other:?}"),
    };
    for behind in [ASKED, NodeId::data(1)] {
        let lags = held("not in sync", asked(), &|seen| {
            let mut it = server(seen, behind);
            if let Replication::Replica { link_up, .. } = &mut it.replication {
                *link_up = false;
            }
            seen.nodes.get_mut(&behind).unwrap().server = ObservedServer::Data(it);
        });
        assert_eq!(lags, PromotionBlocker::Waiting(WaitReason::Sync { node: behind }));
    }
    let unknown = |node| {
        held("unknown", asked(), &move |seen: &mut Observed| {
            seen.nodes.get_mut(&node).unwrap().server = ObservedServer::Unknown;
        })
    };
    assert_eq!(
        unknown(NodeId::sentinel(0)),
        PromotionBlocker::Waiting(WaitReason::Server { node: NodeId::sentinel(0) })
    );
    assert_eq!(unknown(ASKED), PromotionBlocker::Waiting(WaitReason::Server { node: ASKED }));
    assert!(matches!(unknown(NodeId::data(0)), PromotionBlocker::Waiting(_)), "the primary is in doubt");
    let rolls = held("a roll is under way", Desired { promotion: asked().promotion, ..desired("new") }, &|_| {});
    assert_eq!(rolls, PromotionBlocker::Steps);
    let paused = held("paused", Desired { paused: true, ..asked() }, &|_| {});
    assert_eq!(paused, PromotionBlocker::Waiting(WaitReason::Paused));
    let moved = held("the primary is being moved", asked(), &|seen| seen.handover = true);
    assert_eq!(moved, PromotionBlocker::Waiting(WaitReason::Handover));
    let new = held("a layer that is being made", asked(), &|seen| seen.initialised = false);
    assert_eq!(new, PromotionBlocker::Steps);
    let away = held("a pod is not ready", asked(), &|seen| {
        seen.nodes.get_mut(&NodeId::data(1)).unwrap().pod.as_mut().unwrap().ready = false;
    });
    assert!(
        matches!(
            away,
            PromotionBlocker::Waiting(_) | PromotionBlocker::Refused(RefusalReason::AnotherNodeIsDown { .. })
        ),
        "{away:?}"
    );
}

#[test]
fn a_roll_that_waits_for_its_approval_holds_no_request() {
    let waiting =
        Desired { disruption_needs_approval: true, promotion: asking(Some(ASKED)).promotion, ..desired("new") };
    let next = planned(&waiting, &converged(NodeId::data(0)));
    assert!(moves(&next) && next.waiting == [WaitReason::Approval], "{next:?}");
}

#[test]
fn a_move_that_failed_is_not_tried_again() {
    let mut asked = asking(Some(ASKED));
    asked.promotion.as_mut().unwrap().failed = Some("no Sentinel can act".to_owned());
    let next = planned(&asked, &converged(NodeId::data(0)));
    assert_eq!((next.steps, next.promotion), (vec![], Some(Promotion::Failed("no Sentinel can act".to_owned()))));
    // A Sentinel finished what the operator saw fail.
    assert_eq!(planned(&asked, &converged(ASKED)).promotion, Some(Promotion::Done));
}

fn labels(observed: &Observed) -> Vec<(NodeId, Option<PodRole>)> {
    let steps = route(&desired("old"), observed).steps;
    let label = |step| match step {
        Step::LabelPod { node, role, .. } => Some((node, role)),
        _ => None,
    };
    steps.into_iter().filter_map(label).collect()
}

/// Pods of an operator before this one have no such label: they get it, and none is replaced.
#[test]
fn each_pod_is_labelled_with_its_role_and_the_primary_last() {
    let mut seen = converged(NodeId::data(1));
    assert_eq!(labels(&seen), []);
    seen.nodes.values_mut().for_each(|node| node.pod.as_mut().unwrap().role = None);
    let (replica, sentinel) = (Some(PodRole::Replica), Some(PodRole::Sentinel));
    let sentinels = [0, 1, 2].map(|ordinal| (NodeId::sentinel(ordinal), sentinel));
    let all = [(NodeId::data(0), replica), (NodeId::data(2), replica)].into_iter().chain(sentinels);
    let all: Vec<_> = all.chain([(NodeId::data(1), Some(PodRole::Primary))]).collect();
    assert_eq!(labels(&seen), all);
    assert!(planned(&desired("old"), &seen).steps.iter().all(|step| matches!(step, Step::LabelPod { .. })));
}

#[test]
fn a_role_that_is_not_known_is_not_guessed() {
    let role =
        |seen: &mut Observed, node: NodeId, role| seen.nodes.get_mut(&node).unwrap().pod.as_mut().unwrap().role = role;
    let silent =
        |seen: &mut Observed, node: NodeId| seen.nodes.get_mut(&node).unwrap().server = ObservedServer::Unknown;
    let (old, other) = (NodeId::data(0), NodeId::data(2));
    let mut seen = converged(NodeId::data(1));
    // The primary before does not answer: it is no primary, and what it is now is not known.
    role(&mut seen, old, Some(PodRole::Primary));
    silent(&mut seen, old);
    assert_eq!(labels(&seen), [(old, None)]);
    // A new pod that does not answer yet has no label, and one that was a replica still is.
    role(&mut seen, old, None);
    silent(&mut seen, other);
    assert_eq!(labels(&seen), []);
    // It says that it is primary, and the Sentinels name another.
    let mut seen = converged(NodeId::data(1));
    seen.nodes.get_mut(&old).unwrap().server = converged(old).nodes[&old].server.clone();
    assert_eq!(labels(&seen), [(old, None)]);
    // No primary is known: everything stays as it was.
    let mut seen = converged(NodeId::data(1));
    (0..3).for_each(|ordinal| silent(&mut seen, NodeId::sentinel(ordinal)));
    role(&mut seen, other, None);
    assert_eq!(labels(&seen), []);
}
