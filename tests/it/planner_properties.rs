//! What holds of every plan, by generation over the model of the world (aesthetics §3.3).

use proptest::prelude::*;
use redoubt::model::observed::{Observed, ObservedServer, Replication};
use redoubt::model::{Address, NodeId};
use redoubt::plan::{Step, plan};

use crate::world::monkey::{Event, Past, history};
use crate::world::{REFUSED_REVISION, STATIC, World};

/// Rounds in which everything is mended once faults cease: a minute of silence, and thrice three resets half a minute apart
/// for each node that goes.
const MOST_ROUNDS: u64 = 900;

/// `PROPTEST_CASES` replaces the committed number of cases in a campaign.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

fn describe(world: &World) -> String {
    let plan = world.plan();
    let servers: Vec<_> = world.pods.iter().map(|(node, pod)| (node.to_string(), &pod.server)).collect();
    format!(
        "steps {:?}\nwaiting {:?}\nrefused {:?}\ntime {}\nservices {:?}\nservers {servers:#?}",
        plan.steps, plan.waiting, plan.refused, world.time, world.services
    )
}

#[test]
fn a_new_layer_comes_up_and_rests() {
    for (data, sentinels) in [(2, 3), (3, 3), (4, 5)] {
        let mut world = World::new(data, sentinels);
        let rounds = world.run_until_converged(60).unwrap_or_else(|| panic!("{}", describe(&world)));
        assert!(rounds < 20, "{rounds}");
        assert_eq!(world.violations, Vec::<String>::new());
    }
}

/// Property 1.
#[test]
fn a_converged_layer_of_any_size_has_an_empty_plan() {
    for (data, sentinels) in [(2, 3), (3, 3), (4, 3), (2, 5), (4, 5)] {
        let plan = World::converged(data, sentinels).plan();
        assert_eq!((plan.steps, plan.waiting, plan.refused), (vec![], vec![], vec![]));
    }
}

/// Property 4 for a creation: the operator ends for good after its n-th side effect, another begins anew.
#[test]
fn an_operator_that_stops_after_any_side_effect_of_a_creation_leaves_what_another_completes() {
    let mut whole = World::new(3, 3);
    while !whole.is_converged() {
        whole.round(usize::MAX);
        assert!(whole.time < 1_100, "{}", describe(&whole));
    }
    let effects = whole.effects;
    // Each node's Service and StatefulSet, and what belongs to the whole layer.
    assert!(effects > 2 * 6 + STATIC.len(), "{effects}");
    for stop_after in 0..=effects {
        for absent in [0, 90] {
            let mut world = World::new(3, 3);
            while world.effects < stop_after && !world.is_converged() {
                world.round(stop_after - world.effects);
            }
            (0..absent).for_each(|_| world.tick());
            assert!(world.run_until_converged(200).is_some(), "stopped after {stop_after}: {}", describe(&world));
            assert_eq!(world.violations, Vec::<String>::new(), "stopped after {stop_after}");
            assert!(world.round(usize::MAX).steps.is_empty());
        }
    }
}

/// The history that an earlier planner got stuck in: the primary's node is no longer declared, restarted nodes knew nothing of
/// it, and machines lost their network.
#[test]
fn a_layer_that_shrinks_and_rolls_at_once_survives_cuts_of_any_node_at_any_time() {
    for cut in 0..7_u8 {
        for after in (1..40).step_by(6) {
            let mut world = World::converged(4, 3);
            world.hand_over(NodeId::data(0), Some(&[NodeId::data(3)]));
            (0..3).for_each(|_| world.tick());
            (world.specification.data, world.specification.revision) = (2, 2);
            let mut past = Past::new(world);
            for event in [Event::Rounds(after), Event::Cut(cut), Event::Rounds(30)] {
                past.apply_event(event);
            }
            let mut world = past.stable();
            assert!(world.run_until_converged(MOST_ROUNDS).is_some(), "{cut} after {after}: {}", describe(&world));
            assert_eq!(world.violations, Vec::<String>::new(), "{cut} after {after}");
        }
    }
}

/// A node was restarted by a roll, and was no longer declared before it was back: the next one was restarted next to it.
#[test]
fn no_node_is_restarted_next_to_one_that_is_no_longer_declared_and_not_back_yet() {
    for rounds in 1..30 {
        for restarted in 0..8 {
            let mut past = Past::new(World::converged(3, 5));
            for event in
                [Event::Revision(2), Event::Rounds(rounds), Event::Scale(2, 5), Event::RestartWorkload(restarted)]
            {
                past.apply_event(event);
            }
            let mut world = past.stable();
            assert!(
                world.run_until_converged(MOST_ROUNDS).is_some(),
                "{restarted} after {rounds}: {}",
                describe(&world)
            );
            assert_eq!(world.violations, Vec::<String>::new(), "{restarted} after {rounds}");
        }
    }
}

/// A specification whose pods are refused, in a new layer and in one that runs, and its correction.
#[test]
fn a_correction_reaches_pods_that_were_refused() {
    for rounds in [1, 3, 30] {
        let mut world = World::new(3, 3);
        world.specification.revision = REFUSED_REVISION;
        (0..rounds).for_each(|_| drop(world.round(usize::MAX)));
        assert!(world.pods.is_empty());
        world.specification.revision = 2;
        let converged = world.run_until_converged(60);
        assert!(converged.is_some(), "{}", describe(&world));
    }
    // While it rolls, an eviction takes a second pod; the correction is another revision than what runs.
    for evicted in [NodeId::data(0), NodeId::data(2), NodeId::sentinel(0)] {
        let mut world = World::converged(3, 3);
        world.specification.revision = REFUSED_REVISION;
        (0..10).for_each(|_| drop(world.round(usize::MAX)));
        if let Some(workload) = world.workloads.get_mut(&evicted) {
            workload.built.revision = REFUSED_REVISION;
        }
        world.pods.remove(&evicted);
        (0..10).for_each(|_| drop(world.round(usize::MAX)));
        world.specification.revision = 3;
        assert!(world.run_until_converged(MOST_ROUNDS).is_some(), "{evicted}: {}", describe(&world));
        assert_eq!(world.violations, Vec::<String>::new());
    }
}

/// The disruptions of a plan, by what is done to whom.
fn disruptions(world: &World, observed: &Observed) -> Vec<(&'static str, NodeId)> {
    let steps = plan(&world.desired(), observed).steps;
    steps.iter().filter(|step| step.is_disruptive()).map(|step| (redoubt::act::name_of(step), step.node())).collect()
}

/// The same addresses under other names, in the opposite order.
fn renamed(observed: &Observed) -> Observed {
    let other = |address: &Address| {
        Address(
            address
                .0
                .chars()
                .map(|letter| letter.to_digit(10).map_or(letter, |digit| char::from_digit(9 - digit, 10).unwrap()))
                .collect(),
        )
    };
    let mut renamed = observed.clone();
    for seen in renamed.nodes.values_mut() {
        seen.address = seen.address.as_ref().map(other);
        match &mut seen.server {
            ObservedServer::Data(server) => match &mut server.replication {
                Replication::Primary { replicas } => {
                    *replicas = replicas.iter().map(|(address, offset)| (other(address), *offset)).collect();
                }
                Replication::Replica { primary, .. } => *primary = other(primary),
            },
            ObservedServer::Sentinel(server) => {
                if let Some(master) = &mut server.master {
                    master.address = other(&master.address);
                    master.replicas =
                        master.replicas.iter().map(|(known, flags)| (other(known), flags.clone())).collect();
                    master.other_sentinels.values_mut().for_each(|known| *known = other(known));
                }
            }
            ObservedServer::Unknown | ObservedServer::Loading => {}
        }
    }
    renamed
}

proptest! {
    #![proptest_config(config(48))]

    /// Property 6: whatever single server is not known, no other is disturbed that was not before. That one may be restarted where that is
    /// due: what comes first may need its answer, and what is broken would never be replaced.
    #[test]
    fn a_fact_that_becomes_unknown_adds_no_disruption(((data, sentinels), events) in history(8)) {
        let mut past = Past::new(World::converged(data, sentinels));
        for event in events {
            past.apply_event(event);
            let observed = past.world.observed();
            let before = disruptions(&past.world, &observed);
            for node in observed.nodes.keys() {
                let mut unknown = observed.clone();
                unknown.nodes.get_mut(node).unwrap().server = ObservedServer::Unknown;
                let after = disruptions(&past.world, &unknown);
                let is_due = |step: &(&'static str, NodeId)| *step == ("RestartPod", *node);
                prop_assert!(
                    after.iter().all(|step| before.contains(step) || is_due(step)),
                    "{node} unknown: {after:?} was {before:?}"
                );
            }
        }
    }

    /// Property 7: nothing depends on the order of addresses; that of nodes is the plan's own.
    #[test]
    fn other_addresses_in_another_order_give_the_same_steps(((data, sentinels), events) in history(8)) {
        let mut past = Past::new(World::converged(data, sentinels));
        for event in events {
            past.apply_event(event);
            let (desired, observed) = (past.world.desired(), past.world.observed());
            let (plan, other) = (plan(&desired, &observed), plan(&desired, &renamed(&observed)));
            let names = |steps: &[Step]| -> Vec<_> {
                steps.iter().map(|step| (redoubt::act::name_of(step), step.node())).collect()
            };
            prop_assert_eq!(names(&plan.steps), names(&other.steps));
            prop_assert_eq!((plan.primaries, plan.waiting, plan.refused), (other.primaries, other.waiting, other.refused));
        }
    }
}

proptest! {
    #![proptest_config(config(64))]

    /// Properties 2, 3, 4, 5, 8 and 9.
    #[test]
    fn from_any_history_the_layer_converges_and_nothing_forbidden_is_done(((data, sentinels), events) in history(14)) {
        let mut past = Past::new(World::converged(data, sentinels));
        for event in events {
            past.apply_event(event);
        }
        let mut world = past.stable();
        let converged = world.run_until_converged(MOST_ROUNDS);
        prop_assert_eq!(&world.violations, &Vec::<String>::new());
        prop_assert!(converged.is_some(), "{}", describe(&world));
        for _ in 0..40 {
            let steps = world.round(usize::MAX).steps;
            prop_assert_eq!(steps, Vec::<Step>::new());
        }
        prop_assert!(world.is_converged());
        prop_assert_eq!(world.specification.promote, None, "a request is answered once all is stable");
    }
}
