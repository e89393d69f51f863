//! What is to be done: the next steps of the layer, and the next state of the credentials of its uses.

use super::super::context::Context;
use super::super::seen::{LayerPass, Seen};
use super::super::uses::{Rotation, Uses};
use super::known::Judged;
use super::wanted::Wanted;
use crate::model::roles::primary;
use crate::plan::{Plan, plan};

/// What is to be done.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// Of each use that is served, in their order.
    pub(super) rotations: Vec<Rotation>,
}

impl Planned {
    /// Plans. Libraries of users that are not to be loaded now are taken out of `wanted`.
    pub(super) fn of(context: &Context, judged: &Judged, wanted: &mut Wanted, seen: &Seen, uses: &Uses) -> Self {
        uses.withhold(context, &mut wanted.desired, &seen.observed);
        let plan = plan(&wanted.desired, &seen.observed);
        let rotations = uses.plan(wanted.pass(judged, seen));
        Self { plan, rotations }
    }
}

impl Wanted {
    /// The layer as its uses are told of it.
    pub(super) fn pass<'pass>(&'pass self, judged: &'pass Judged, seen: &'pass Seen) -> LayerPass<'pass> {
        LayerPass {
            object: &judged.object,
            layer: &judged.layer,
            desired: &self.desired,
            seen,
            primary: primary(&self.desired, &seen.observed),
            libraries: &self.use_libraries,
        }
    }
}
