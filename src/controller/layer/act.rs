//! Carries out what was planned: the objects that need no order, the steps, and the bindings of the uses.

use kube::runtime::reflector::ObjectRef;
use tracing::{Instrument as _, Span};

use super::super::context::Context;
use super::super::observation::Observation;
use super::super::uses::{Uses, UsesOutcome};
use super::facts::{AcceptedLayer, LayerFacts};
use super::objects::{apply_static, not_done};
use super::plan::LayerPlan;
use crate::act::{self, Handover, PlanOutcome, StepOutcome, StepResources};
use crate::model::LayerIdentity;
use crate::model::observed::Observed;
use crate::plan::Step;
use crate::report::StepFailure;

/// What came of the plan.
pub(super) struct ActOutcome {
    /// What was planned and not done.
    pub(super) undone: Vec<StepFailure>,
    pub(super) uses: UsesOutcome,
}

impl ActOutcome {
    /// Carries out the plan. What fails stops nothing that does not need it.
    pub(super) async fn of(
        context: &Context,
        facts: &LayerFacts,
        accepted: &AcceptedLayer,
        seen: &Observation,
        uses: &Uses,
        layer_plan: &LayerPlan,
    ) -> Self {
        let build = &layer_plan.build;
        let mut undone = Vec::new();
        if let Some((step, outcome)) = &seen.ended_move {
            act::log_outcome(step, outcome);
            context.metrics.step(act::name_of(step), outcome.word());
            undone.extend(not_done(Some(step.clone()), outcome));
        }
        if !build.desired.paused {
            undone.extend(apply_static(context, facts, accepted, build, &layer_plan.plan).await);
            undone.extend(carry_out(context, facts, seen, uses, layer_plan).await);
        }
        let uses = uses.act(context, build.pass(accepted, seen), &layer_plan.rotations).await;
        Self { undone, uses }
    }
}

async fn carry_out(
    context: &Context,
    facts: &LayerFacts,
    seen: &Observation,
    uses: &Uses,
    layer_plan: &LayerPlan,
) -> Vec<StepFailure> {
    let build = &layer_plan.build;
    let objects = &build.built.nodes;
    let resources = StepResources {
        layer: &facts.identity,
        desired: &build.desired,
        primary_service: &build.built.primary_service,
        services: &build.built.node_services,
        workloads: &objects.iter().map(|(node, it)| (*node, &it.workload)).collect(),
        documents: &objects.iter().map(|(node, it)| (*node, it.document.as_str())).collect(),
        live_services: &facts.children.services,
        live_workloads: &facts.children.workloads,
        libraries: &build.libraries,
        connections: &seen.connections,
        endpoints: &build.questions.iter().map(|(node, question)| (*node, &question.endpoint)).collect(),
        addresses: &build.addresses,
    };
    let mut undone = Vec::new();
    let PlanOutcome { outcomes, handover, load_times } =
        act::carry_out(&context.writer, resources, &layer_plan.plan.steps).await;
    if let Some((step, handover)) = handover {
        begin(context, &facts.identity, step, handover);
    }
    for (step, outcome) in outcomes {
        context.metrics.step(act::name_of(&step), outcome.word());
        note_absence(context, &seen.observed, &step, &outcome);
        if matches!((&step, &outcome), (Step::LoadLibrary { .. }, StepOutcome::Done | StepOutcome::Failed { .. })) {
            context.uses.loaded(&facts.identity.uid);
        }
        uses.note_time(context, &facts.identity.uid, &load_times, &step, &outcome);
        if !uses.note(context, &facts.identity.uid, &seen.observed, &step, &outcome) {
            undone.extend(not_done(Some(step), &outcome));
        }
    }
    undone
}

/// Begins the move of the primary; its end starts a pass.
fn begin(context: &Context, layer: &LayerIdentity, step: Step, handover: Handover) {
    let (wake, object) = (context.wake.clone(), ObjectRef::new(&layer.name).within(&layer.namespace));
    let moving = async move {
        let outcome = handover.carry_out().await;
        // The receiver is dropped during shutdown.
        let _ = wake.unbounded_send(object);
        outcome
    };
    context.handovers.begin(&layer.uid, step, moving.instrument(Span::current()));
}

/// Remembers which node a step takes away: it is missed less than one that was not taken.
fn note_absence(context: &Context, observed: &Observed, step: &Step, outcome: &StepOutcome) {
    let workload = observed.nodes.get(&step.node()).and_then(|seen| seen.workload.as_ref());
    if let (Step::RestartPod { .. }, true, Some(workload)) = (step, outcome.is_done(), workload) {
        context.absences.taken(&workload.uid);
    }
}
