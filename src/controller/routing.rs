//! One pass of a replica of the operator that does not lead: it points the Services at who serves, and does nothing else.
//!
//! Clients must not wait for a Lease to end. Who is primary is for the Sentinels to say, so two who look come to the same end;
//! and a Service is changed only from the version that was seen, so who looked too long ago changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::context::Context;
use super::data_layer::{Error, Known, addresses, ask, credentials, identity, seen};
use super::desired::{questions, roles_only};
use crate::act::{self, label_reads};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::build::{Built, Inputs, build, declared};
use crate::model::LayerIdentity;
use crate::observe::kubernetes::{Children, children};
use crate::plan::{Plan, Step, route};
use crate::telemetry::Chain;

/// Pause while the Services select who serves: a move announces itself.
const AT_REST: Duration = Duration::from_secs(10);
/// Pause while nobody is known to serve, or something could not be written.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Makes one pass over a layer; `object` is `None` where it cannot be read: then it is the layer that was accepted last.
pub async fn pass(context: &Context, metadata: &ObjectMeta, object: Option<&DataLayer>) -> Result<Duration, Error> {
    let pause = look(context, metadata, object).await?;
    context.backoff.succeeded(metadata.uid.as_deref().unwrap_or_default());
    Ok(pause)
}

async fn look(context: &Context, metadata: &ObjectMeta, object: Option<&DataLayer>) -> Result<Duration, Error> {
    let identity = identity(metadata);
    let children = children(&context.stores, &identity);
    let mut observed = seen(context, &children, &identity, object.and_then(|object| object.status.as_ref()));
    if !observed.initialised {
        // Nobody uses a layer that is still being made, and who makes it points its Services.
        return Ok(UNDER_WAY);
    }
    let known = Known::of(context, identity, children).await?;
    let judged = object.map_or_else(|| known.earlier(metadata), |object| known.judge(object).ok());
    // A layer that was never accepted has nothing that could be pointed.
    let Some(judged) = &judged else { return Ok(AT_REST) };
    let layer = &judged.layer;
    let Known { identity, children, secrets, resolved, .. } = known;
    let passwords = secrets.passwords(context, &identity);
    let resolved_text = resolved.decided(layer).text();
    let addresses = addresses(&declared(layer), &observed, &children);
    let inputs = Inputs {
        layer,
        addresses: &addresses,
        initialised: observed.initialised,
        resolved_defaults: &resolved_text,
        primary: observed.primary_service,
        functions: "",
        caches: &BTreeMap::new(),
        prefixes: "",
        credentials: credentials(&passwords, "", ""),
    };
    let desired = roles_only(&judged.object, layer, &build(&inputs));
    ask(context, &identity, &questions(&desired, &children, &passwords), &mut observed).await;
    let plan = route(&desired, &observed);
    if plan.dials.primary.is_none() {
        return Ok(if desired.paused { AT_REST } else { UNDER_WAY });
    }
    let is_moved = plan.dials.primary != observed.primary_service;
    let built = build(&Inputs { primary: plan.dials.primary, ..inputs });
    let written = write(context, &identity, &children, &plan, is_moved.then_some(&built)).await;
    Ok(written.map_or_else(
        |error| {
            tracing::info!(layer = identity.name, error = %Chain(&error), "the Services are not moved");
            UNDER_WAY
        },
        |()| AT_REST,
    ))
}

/// Points the primary's Service as `moved` has it, and says which pods the replicas' Service selects.
async fn write(
    context: &Context,
    layer: &LayerIdentity,
    children: &Children,
    plan: &Plan,
    moved: Option<&Built>,
) -> Result<(), act::Error> {
    let name = names::primary_service(&layer.name);
    let wanted = moved.and_then(|built| built.services.iter().find(|service| service.name_any() == name));
    // One that is not there yet is made by who leads.
    if let (Some(wanted), Some(live)) = (wanted, children.services.get(&name).map(Arc::as_ref)) {
        context.writer.apply_as_seen(wanted, Some(live)).await?;
    }
    for step in &plan.steps {
        if let Step::LabelReads { node, pod_uid, reads } = step {
            label_reads(&context.writer, layer, *node, pod_uid, *reads).await?;
        }
    }
    Ok(())
}
