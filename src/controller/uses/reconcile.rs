//! One pass over one use: its dedicated layer, and what is told of it while there is no layer that could. All else, refusals
//! too, is done by its layer's pass ([`super`]), so each part of the status has one writer at a time.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::super::context::Context;
use super::super::error::Error;
use super::super::publish;
use super::binding::withdraw;
use super::dedicated;
use crate::act::StepOutcome;
use crate::api::use_status::LayerReference;
use crate::api::uses::DeclaredUse;
use crate::failure::Class;
use crate::report::uses::{pending, refused};
use crate::validate::uses::tenancy::{Refusal, dedicated_refusal};
use crate::validate::uses::{is_dedicated, layer_of, validate};

/// Pause while a layer serves the use, or an object has to be changed: what that depends on wakes us.
const AT_REST: Duration = Duration::from_mins(5);
/// Pause while the layer is being made.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Pause while another process's object is in the way, which no watch shows.
const REFUSED: Duration = Duration::from_secs(15);

/// Makes one pass; answers how long to wait for the next. The first wakes the use's layer, which waits for it.
pub(crate) async fn pass(context: &Context, declared: &DeclaredUse) -> Result<Duration, Error> {
    let pause = keep_and_report(context, declared).await;
    if context.uses.layer_was_kept(&declared.uid().unwrap_or_default()) && is_dedicated(declared) {
        let (namespace, name) = layer_of(declared);
        // The receiver is dropped during shutdown.
        let _ = context.wake.unbounded_send(ObjectRef::new(&name).within(&namespace));
    }
    pause
}

async fn keep_and_report(context: &Context, declared: &DeclaredUse) -> Result<Duration, Error> {
    let (namespace, name) = layer_of(declared);
    if context.is_unreadable(&namespace, &name) {
        return Ok(AT_REST);
    }
    // More replicas than any layer has: whether they are enough, its layer says.
    let found = context.layer(&namespace, &name);
    if let Err(faults) = validate(declared, u16::MAX) {
        if found.is_some_and(|layer| layer.metadata.deletion_timestamp.is_none()) {
            return Ok(AT_REST);
        }
        let message = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return refuse(context, declared, &Refusal { reason: "Invalid", message }).await;
    }
    if let Some(refusal) = dedicated_refusal(declared, found.is_some(), context.defaults.forbids_dedicated) {
        return refuse(context, declared, &refusal).await;
    }
    let uid = declared.uid().unwrap_or_default();
    let kept = if is_dedicated(declared) { dedicated::keep(context, declared, found.as_ref()).await } else { Ok(None) };
    let stays = match kept {
        Ok(stays) => stays,
        Err(error) => {
            let outcome = StepOutcome::of(&error);
            let message = outcome.detail().to_owned();
            return match (&outcome, error.class()) {
                (StepOutcome::NameTaken(_), _) => {
                    refuse(context, declared, &Refusal { reason: "NameTaken", message }).await
                }
                // What the API server says of `dedicated` is the answer to its author. A layer that is there runs on.
                (_, Class::Invalid) if found.is_none() => {
                    refuse(context, declared, &Refusal { reason: "LayerRefused", message }).await
                }
                (_, Class::Invalid) => {
                    context.uses.layer_change(&uid, Some(format!("the layer runs on unchanged: {message}")));
                    Ok(REFUSED)
                }
                _ => Err(Error::Act(error)),
            };
        }
    };
    context.uses.layer_change(&uid, stays);
    let reference = || LayerReference::new(&namespace, &name);
    if found.is_none_or(|layer| layer.metadata.deletion_timestamp.is_some()) {
        if is_dedicated(declared) {
            let generation = declared.metadata.generation.unwrap_or_default();
            let status = pending(
                declared.kind(),
                generation,
                reference(),
                &declared.status.clone().unwrap_or_default(),
                publish::now(),
            );
            publish::publish_use(context, declared, &status).await?;
            return Ok(UNDER_WAY);
        }
        let message = format!(
            "there is no DataLayer {namespace}/{name}: create it; or delete this {} and make it again with another \
             spec.layer, which cannot be changed",
            declared.kind().words().kind
        );
        return refuse(context, declared, &Refusal { reason: "LayerNotFound", message }).await;
    }
    Ok(AT_REST)
}

/// Takes the binding away and says why.
async fn refuse(context: &Context, declared: &DeclaredUse, refusal: &Refusal) -> Result<Duration, Error> {
    withdraw(context, declared).await?;
    let generation = declared.metadata.generation.unwrap_or_default();
    let old = declared.status.clone().unwrap_or_default();
    let (namespace, name) = layer_of(declared);
    let layer = LayerReference::new(namespace, name);
    let status =
        refused(declared.kind(), generation, refusal.reason, &refusal.message, Some(layer), &old, publish::now());
    publish::publish_use(context, declared, &status).await?;
    Ok(REFUSED)
}
