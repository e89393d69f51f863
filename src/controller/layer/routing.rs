//! One pass of a replica of the operator that does not lead: it points the Services at who serves, and does nothing else.
//!
//! Clients must not wait for a Lease to end. Who is primary is for the Sentinels to say, so two who look come to the same end;
//! and a Service is changed only from the version that was seen, so who looked too long ago changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::error::Error;
use super::ask::ask;
use super::build::credentials;
use super::desired::{questions, roles_only};
use super::facts::Objects;
use crate::act::{self, label_pod, point_service};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::build::{Built, Inputs, build, declared};
use crate::model::LayerIdentity;
use crate::observe::kubernetes::Children;
use crate::plan::{Plan, Step, route};
use crate::telemetry::Chain;

/// Pause while the Services select who serves: a move announces itself.
const AT_REST: Duration = Duration::from_secs(10);
/// Pause while no node is known to serve, or something could not be written.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Makes one pass over a layer; `object` is `None` where it cannot be read: then it is the layer that was accepted last.
pub(in crate::controller) async fn pass(
    context: &Context,
    metadata: &ObjectMeta,
    object: Option<&DataLayer>,
) -> Result<Duration, Error> {
    let pause = point_services(context, metadata, object).await?;
    context.backoff.succeeded(metadata.uid.as_deref().unwrap_or_default());
    Ok(pause)
}

async fn point_services(
    context: &Context,
    metadata: &ObjectMeta,
    object: Option<&DataLayer>,
) -> Result<Duration, Error> {
    let objects = Objects::of(context, metadata, object.and_then(|object| object.status.as_ref()));
    if !objects.observed.initialised {
        // A layer that is still being made is not used, and the leader points its Services.
        return Ok(UNDER_WAY);
    }
    let facts = objects.with_secrets(context).await?;
    let accepted = object.map_or_else(|| facts.earlier(metadata), |object| facts.judge(object).ok());
    // A layer that was never accepted has nothing that could be pointed.
    let Some(accepted) = &accepted else { return Ok(AT_REST) };
    let layer = &accepted.layer;
    let passwords = facts.passwords(context);
    let addresses = facts.addresses(&declared(layer));
    let built = build(&Inputs {
        layer,
        addresses: &addresses,
        initialised: facts.observed.initialised,
        resolved_defaults: &facts.resolved.clone().decided(layer).text(),
        primary: facts.observed.primary_service,
        functions: b"",
        called: &BTreeSet::new(),
        caches: &BTreeMap::new(),
        prefixes: "",
        credentials: credentials(&passwords, "", ""),
    });
    let desired = roles_only(&accepted.object, layer, &built);
    let questions = questions(&desired, &facts.children, &passwords);
    let seen = ask(context, &facts.identity, &questions, facts.observed.clone()).await;
    let plan = route(&desired, &seen.observed);
    if plan.primary.is_none() {
        return Ok(if desired.paused { AT_REST } else { UNDER_WAY });
    }
    let written = write(context, &facts.identity, &facts.children, &plan, &built).await;
    Ok(written.map_or_else(
        |error| {
            tracing::info!(layer = facts.identity.name, error = %Chain(&error), "the Services are not moved");
            UNDER_WAY
        },
        |()| AT_REST,
    ))
}

/// Points the primary's Service, and labels the pods with their roles and with whether the replicas' Service selects them.
async fn write(
    context: &Context,
    layer: &LayerIdentity,
    children: &Children,
    plan: &Plan,
    built: &Built,
) -> Result<(), act::Error> {
    let name = names::primary_service(&layer.name);
    let service = built.services.iter().find(|service| service.name_any() == name);
    for step in &plan.steps {
        match step {
            // One that is not there yet is made by who leads.
            Step::PointService { node, version: Some(version) } => {
                let live = children.services.get(&name).map(Arc::as_ref);
                if let Some(service) = service {
                    point_service(&context.writer, layer, service, live, *node, Some(version)).await?;
                }
            }
            Step::LabelPod { node, pod_uid, reads, role } => {
                label_pod(&context.writer, layer, *node, pod_uid, *reads, *role).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
