//! One pass over one layer and its uses: observe → validate → build → observe the servers → plan → act → prove → report. Each step
//! takes what the ones before it gave, so none can be left out or made in another order.

mod accepted;
mod act;
mod application_proof;
mod ask;
mod desired;
mod known;
mod objects;
mod planned;
mod promotion;
mod proofs;
mod report;
mod resolved;
pub(super) mod routing;
mod wanted;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::act::Done;
use self::known::{Judged, Known};
use self::planned::Planned;
use self::proofs::Proofs;
use self::report::{Report, not_accepted};
use self::wanted::Wanted;
use super::context::Context;
use super::error::Error;
use super::uses::Uses;
use crate::api::data_layer::DataLayer;

/// Makes one pass; answers how long to wait for the next.
pub(super) async fn pass(context: &Context, object: &DataLayer) -> Result<Duration, Error> {
    let known = Known::observe(context, &object.metadata, object.status.as_ref()).await?;
    match known.judge(object) {
        Ok(judged) => Box::pin(steps(context, &known, &judged, Some(object))).await,
        Err(faults) => not_accepted(context, object, &faults).await,
    }
}

/// Makes a pass over a layer whose object no longer parses, with the specification that was accepted last. Its status cannot
/// be read, so none is written. `None`: no specification is known.
pub(super) async fn pass_unreadable(context: &Context, metadata: &ObjectMeta) -> Result<Option<Duration>, Error> {
    let known = Known::observe(context, metadata, None).await?;
    let Some(judged) = known.earlier(metadata) else { return Ok(None) };
    Box::pin(steps(context, &known, &judged, None)).await.map(Some)
}

/// The steps of a pass. `object`: where the status is written; `None`: it cannot be read.
async fn steps(
    context: &Context,
    known: &Known,
    judged: &Judged,
    object: Option<&DataLayer>,
) -> Result<Duration, Error> {
    let uses = Uses::admit(context, &judged.object, &judged.layer, object).await?;
    let wanted = Wanted::build(context, known, judged, &uses);
    let seen = ask::observe(context, known, &wanted, &uses).await;
    let planned = Planned::of(context, judged, wanted, &seen, &uses, object);
    let done = Done::of(context, known, judged, &seen, &uses, &planned).await;
    let proofs = Proofs::of(context, judged, &seen, &uses, &planned, &done).await;
    let report = Report::of(context, judged, &seen, &uses, planned, done, proofs, object);
    report.publish(context, object).await
}
