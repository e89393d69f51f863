//! What is told of a layer and its uses, those that it refuses as well, and when the next pass is due.

use std::time::Duration;

use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::error::Error;
use super::super::observation::Observation;
use super::super::publish;
use super::super::uses::{self, LayerWords, UseReport, Uses};
use super::act::ActOutcome;
use super::desired::{odd_approval, subject};
use super::facts::AcceptedLayer;
use super::plan::LayerPlan;
use super::promotion;
use super::proofs::Proofs;
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::failure::Class;
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::plan::{Plan, WaitReason};
use crate::report::uses::{LayerCause, LayerNote};
use crate::report::{self, Facts, StepFailure};
use crate::validate::Fault;

/// Pause after a pass that found everything as declared.
const AT_REST: Duration = Duration::from_secs(3);
/// Pause while something is under way; most of what is waited for announces itself by an event before that.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Longest pause while something fails: the rest of the layer is looked after all the same.
const LONGEST_WITH_FAILURES: Duration = Duration::from_secs(5);
/// Pause while the specification is wrong and was never right; a correction starts a pass at once.
const NOT_ACCEPTED: Duration = Duration::from_secs(30);

pub(super) struct Report {
    status: DataLayerStatus,
    uses: Vec<UseReport>,
    /// Until the next pass, if no use is waited for.
    pause: Duration,
    /// A layer in which something fails keeps its own, slower pace.
    may_hurry: bool,
}

impl Report {
    /// What all that was found and done amounts to.
    #[expect(clippy::too_many_arguments, reason = "one of each step of a pass")]
    pub(super) fn of(
        context: &Context,
        accepted: &AcceptedLayer,
        seen: &Observation,
        uses: &Uses,
        layer_plan: LayerPlan,
        act_outcome: ActOutcome,
        proofs: Proofs,
        object: Option<&DataLayer>,
    ) -> Self {
        let LayerPlan { build, plan, rotations } = layer_plan;
        let ActOutcome { undone, uses: uses_outcome } = act_outcome;
        let Proofs { application_breaches, uses: use_proofs } = proofs;
        let old = object.and_then(|object| object.status.clone()).unwrap_or_default();
        let mut subject = subject(&accepted.layer);
        subject.application_breaches = application_breaches;
        subject.odd_approval = object.and_then(odd_approval);
        subject.promote = object.and_then(promotion::text);
        subject.leaves_out_functions = build.leaves_out_functions;
        subject.audit = build.pass(accepted, seen).audit.cloned();
        uses.note_emptied(context, &accepted.layer.identity.uid, subject.audit.as_deref());
        let facts = Facts {
            desired: &build.desired,
            observed: &seen.observed,
            plan: &plan,
            undone: &undone,
            faults: &seen.faults,
            waits: &seen.waits,
            subject: &subject,
        };
        let mut status = report::status(facts, &old, publish::now());
        let generation = object.and_then(|object| object.metadata.generation).unwrap_or_default();
        let has_served = seen.observed.initialised;
        let refuse = |status, generation, reason, why: &[String]| {
            report::change_refused(generation, reason, why, has_served, status, &old, publish::now())
        };
        if let Some(taken) = undone.iter().find(|undone| undone.name_taken) {
            status = refuse(status, build.desired.generation, "NameTaken", std::slice::from_ref(&taken.why));
        }
        if !accepted.faults.is_empty() {
            status = refuse(status, generation, "Invalid", &words(&accepted.faults));
        }
        let is_new = !(seen.observed.initialised && seen.observed.recorded);
        let words = LayerWords { note: note(object, accepted, &build.desired), cause: LayerCause::of(&status, is_new) };
        let uses = uses.report(context, build.pass(accepted, seen), &words, &rotations, uses_outcome, use_proofs);
        let pause = pause(context, &build.desired, &seen.observed, &plan, &undone);
        Self { status, uses, pause, may_hurry: undone.is_empty() }
    }

    /// Writes what differs from what was told before; answers when the next pass is due.
    pub(super) async fn publish(self, context: &Context, object: Option<&DataLayer>) -> Result<Duration, Error> {
        // The layer first: a use is not Ready before its layer is. A layer whose status the API server does not take keeps none from its uses.
        let written = match object {
            Some(object) => publish::publish(context, object, &self.status).await,
            None => Ok(()),
        };
        let is_busy = uses::publish(context, self.uses).await;
        written?;
        Ok(if is_busy && self.may_hurry { self.pause.min(UNDER_WAY) } else { self.pause })
    }
}

/// What keeps changes from the layer; `object`: `None`, it cannot be read.
fn note(object: Option<&DataLayer>, accepted: &AcceptedLayer, desired: &Desired) -> Option<LayerNote> {
    if desired.paused {
        Some(LayerNote::Paused)
    } else if object.is_none() {
        Some(LayerNote::Unreadable)
    } else {
        (!accepted.faults.is_empty()).then(|| LayerNote::Refused(words(&accepted.faults).join("; ")))
    }
}

fn words(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// How long to wait for the next pass. What the servers have to do is looked at often; what Kubernetes or a person has to do
/// announces itself; what was tried and failed is tried less and less often.
fn pause(context: &Context, desired: &Desired, observed: &Observed, plan: &Plan, undone: &[StepFailure]) -> Duration {
    if !desired.paused && !undone.is_empty() {
        let pause = context.backoff.failed(&desired.layer.uid, Class::Transient, rand::random());
        // Without a pod there is nothing else to look after.
        let has_pods = observed.nodes.values().any(|seen| seen.pod.is_some());
        return if has_pods { pause.min(LONGEST_WITH_FAILURES) } else { pause };
    }
    context.backoff.succeeded(&desired.layer.uid);
    let is_others = |waiting: &WaitReason| {
        matches!(waiting, WaitReason::Approval | WaitReason::Paused | WaitReason::Pod { trouble: Some(_), .. })
    };
    // The layer is not Ready before it is marked as initialised.
    let is_recorded = observed.recorded || !plan.initialised;
    let is_at_rest = is_recorded && plan.steps.is_empty() && plan.waiting.iter().all(is_others);
    let waits_long = context.pace.waits_long(&desired.layer.uid, &plan.waiting) && plan.steps.is_empty();
    if is_at_rest || desired.paused || (waits_long && is_recorded) { AT_REST } else { UNDER_WAY }
}

/// Tells of a layer that was never accepted, and its uses of it.
pub(super) async fn not_accepted(context: &Context, object: &DataLayer, faults: &[Fault]) -> Result<Duration, Error> {
    let old = object.status.clone().unwrap_or_default();
    let words = words(faults);
    let generation = object.metadata.generation.unwrap_or_default();
    let status = report::not_accepted(generation, &words, &old, publish::now());
    publish::publish(context, object, &status).await?;
    let trouble = format!("DataLayer {}: {}", object.name_any(), words.join("; "));
    uses::report_layer_not_accepted(context, object, &trouble).await;
    Ok(NOT_ACCEPTED)
}
