//! What is to be done: the next steps of the layer, and the next state of the credentials of its uses.

use super::super::context::Context;
use super::super::observation::{LayerPass, Observation};
use super::super::uses::{Rotation, Uses};
use super::build::LayerBuild;
use super::facts::AcceptedLayer;
use super::promotion;
use crate::api::data_layer::DataLayer;
use crate::model::roles::primaries;
use crate::plan::{Plan, plan};

/// What the plan step decided.
pub(super) struct LayerPlan {
    /// What should be, but for libraries of users that are not to be loaded now.
    pub(super) build: LayerBuild,
    pub(super) plan: Plan,
    /// Of each use that is served, in their order.
    pub(super) rotations: Vec<Rotation>,
}

impl LayerPlan {
    /// Plans. `object`: where a person asks for a move of the primary; `None`: it cannot be read.
    pub(super) fn of(
        context: &Context,
        accepted: &AcceptedLayer,
        mut build: LayerBuild,
        seen: &Observation,
        uses: &Uses,
        object: Option<&DataLayer>,
    ) -> Self {
        build.desired.promotion = object.and_then(|object| promotion::request(object, &accepted.layer, seen));
        uses.withhold(context, &accepted.layer.identity.uid, &mut build.desired, &seen.observed);
        let plan = plan(&build.desired, &seen.observed);
        let rotations = uses.plan(build.pass(accepted, seen));
        Self { build, plan, rotations }
    }
}

impl LayerBuild {
    /// The layer as its uses are told of it.
    pub(super) fn pass<'pass>(
        &'pass self,
        accepted: &'pass AcceptedLayer,
        seen: &'pass Observation,
    ) -> LayerPass<'pass> {
        LayerPass {
            object: &accepted.object,
            layer: &accepted.layer,
            desired: &self.desired,
            seen,
            questions: &self.questions,
            audit: seen.audit.as_ref(),
            primary: primaries(&self.desired, &seen.observed).first(),
            libraries: &self.use_libraries,
        }
    }
}
