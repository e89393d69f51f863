//! What is to be done: the next steps of the layer, and the next state of the credentials of its uses.

use std::sync::Arc;

use super::super::context::Context;
use super::super::seen::{LayerPass, Seen};
use super::super::uses::{Rotation, Uses};
use super::known::Judged;
use super::promotion;
use super::wanted::Wanted;
use crate::api::data_layer::DataLayer;
use crate::model::audit::AuditReport;
use crate::model::roles::primary;
use crate::plan::{Plan, plan};

pub(super) struct Planned {
    /// What should be, but for libraries of users that are not to be loaded now.
    pub(super) wanted: Wanted,
    pub(super) plan: Plan,
    /// Of each use that is served, in their order.
    pub(super) rotations: Vec<Rotation>,
}

impl Planned {
    /// Plans. `object`: where a person asks for a move of the primary; `None`: it cannot be read.
    pub(super) fn of(
        context: &Context,
        judged: &Judged,
        mut wanted: Wanted,
        seen: &Seen,
        uses: &Uses,
        object: Option<&DataLayer>,
    ) -> Self {
        wanted.desired.promotion = object.and_then(|object| promotion::request(object, &judged.layer, seen));
        uses.withhold(context, &mut wanted.desired, &seen.observed);
        let plan = plan(&wanted.desired, &seen.observed);
        let rotations = uses.plan(wanted.pass(judged, seen));
        Self { wanted, plan, rotations }
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
            questions: &self.questions,
            audit: newest_audit(&seen.audits, &self.prefixes),
            primary: primary(&self.desired, &seen.observed),
            libraries: &self.use_libraries,
        }
    }
}

/// The newest of these that goes by the prefixes that are declared now.
fn newest_audit<'a>(audits: &'a [Arc<AuditReport>], prefixes: &str) -> Option<&'a Arc<AuditReport>> {
    audits.iter().filter(|audit| audit.list == prefixes).max_by_key(|audit| audit.finished)
}
