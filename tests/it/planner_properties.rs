//! What holds of every plan, by generation over the model of the world (aesthetics §3.3).

use proptest::prelude::*;
use redoubt::plan::Step;

use crate::world::World;
use crate::world::monkey::{Past, history};

/// Rounds in which everything is mended once faults cease: a minute of silence, and thrice three resets half a minute apart
/// for each node that goes.
const PATIENCE: u64 = 900;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

fn told(world: &World) -> String {
    let plan = world.plan();
    format!("steps {:?}\nwaiting {:?}\nrefused {:?}", plan.steps, plan.waiting, plan.refused)
}

#[test]
fn a_new_layer_comes_up_and_rests() {
    for (data, sentinels) in [(2, 3), (3, 3), (4, 5)] {
        let mut world = World::new(data, sentinels);
        let rounds = world.settle(60).unwrap_or_else(|| panic!("{}", told(&world)));
        assert!(rounds < 20, "{rounds}");
        assert_eq!(world.violations, Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// Properties 2, 3, 4, 5, 8 and 9.
    #[test]
    fn from_any_history_the_layer_converges_and_nothing_forbidden_is_done(((data, sentinels), events) in history(14)) {
        let mut past = Past::new(World::converged(data, sentinels));
        for event in events {
            past.suffer(event);
        }
        let mut world = past.calm();
        let settled = world.settle(PATIENCE);
        prop_assert_eq!(&world.violations, &Vec::<String>::new());
        prop_assert!(settled.is_some(), "{}\n{:#?}", told(&world), world);
        for _ in 0..40 {
            let steps = world.round(usize::MAX).steps;
            prop_assert_eq!(steps, Vec::<Step>::new());
        }
        prop_assert!(world.is_converged());
    }
}
