//! What the servers prove of the users' rights: `ACL DRYRUN`, asked where an answer is missing or old.
//!
//! After the steps, because a failover changes the process that the proofs are about: all of them are due in the very pass that has to
//! point the Services, which must not wait for some thousands of questions.

use super::super::context::Context;
use super::super::observation::Observation;
use super::super::uses::Uses;
use super::act::ActOutcome;
use super::application_proof;
use super::facts::AcceptedLayer;
use super::plan::LayerPlan;

/// What was proven.
pub(super) struct Proofs {
    /// What the layer's application user or administrator may and should not, or should and may not, with the node.
    pub(super) application_breaches: Vec<String>,
    /// The same of the user of each use that is served, in their order; `None`: it could not be asked.
    pub(super) uses: Vec<Option<Vec<String>>>,
}

impl Proofs {
    /// Asks what is due, once the steps are done.
    pub(super) async fn of(
        context: &Context,
        accepted: &AcceptedLayer,
        seen: &Observation,
        uses: &Uses,
        layer_plan: &LayerPlan,
        _after: &ActOutcome,
    ) -> Self {
        let build = &layer_plan.build;
        Self {
            application_breaches: application_proof::breaches(context, &accepted.layer, &build.desired, seen).await,
            uses: uses.prove(context, build.pass(accepted, seen)).await,
        }
    }
}
