//! One pass over one layer and its uses: observe → validate → build → observe the servers → plan → act → prove → report. Each step
//! takes what the ones before it gave, so none can be left out or made in another order.

mod act;
mod application_proof;
mod ask;
mod build;
mod desired;
mod facts;
mod objects;
mod plan;
mod promotion;
mod proofs;
mod report;
mod resolved;
pub(super) mod routing;
mod specification;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::act::ActOutcome;
use self::build::LayerBuild;
use self::facts::{AcceptedLayer, LayerFacts};
use self::plan::LayerPlan;
use self::proofs::Proofs;
use self::report::{Report, not_accepted};
use super::context::Context;
use super::error::Error;
use super::uses::Uses;
use crate::api::data_layer::DataLayer;

/// Makes one pass; answers how long to wait for the next.
pub(super) async fn pass(context: &Context, object: &DataLayer) -> Result<Duration, Error> {
    let facts = LayerFacts::observe(context, &object.metadata, object.status.as_ref()).await?;
    match facts.judge(object) {
        Ok(accepted) => Box::pin(steps(context, &facts, &accepted, Some(object))).await,
        Err(faults) => not_accepted(context, object, &faults).await,
    }
}

/// Makes a pass over a layer whose object no longer parses, with the specification that was accepted last. Its status cannot
/// be read, so none is written. `None`: no specification is known.
pub(super) async fn pass_unreadable(context: &Context, metadata: &ObjectMeta) -> Result<Option<Duration>, Error> {
    let facts = LayerFacts::observe(context, metadata, None).await?;
    let Some(accepted) = facts.earlier(metadata) else { return Ok(None) };
    Box::pin(steps(context, &facts, &accepted, None)).await.map(Some)
}

/// The steps of a pass. `object`: where the status is written; `None`: it cannot be read.
async fn steps(
    context: &Context,
    facts: &LayerFacts,
    accepted: &AcceptedLayer,
    object: Option<&DataLayer>,
) -> Result<Duration, Error> {
    let uses = Uses::admit(context, &accepted.object, &accepted.layer, object).await?;
    let build = LayerBuild::of(context, facts, accepted, &uses);
    let seen = ask::observe(context, facts, &build, &uses).await;
    let layer_plan = LayerPlan::of(context, accepted, build, &seen, &uses, object);
    let act_outcome = ActOutcome::of(context, facts, accepted, &seen, &uses, &layer_plan).await;
    let proofs = Proofs::of(context, accepted, &seen, &uses, &layer_plan, &act_outcome).await;
    let report = Report::of(context, accepted, &seen, &uses, layer_plan, act_outcome, proofs, object);
    report.publish(context, object).await
}
