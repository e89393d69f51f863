//! One pass of a replica of the operator that does not lead: it points the Services at who serves, and does nothing else.
//!
//! Clients must not wait for a Lease to end. Who is primary is for the Sentinels to say, so two who look come to the same end;
//! and a Service is changed only from the version that was seen, so who looked too long ago changes nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::context::Context;
use super::super::error::Error;
use super::ask::ask;
use super::desired::{questions, roles_only};
use super::facts::Objects;
use crate::act::{self, label_pod, point_service};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::build::primary_service;
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
    let desired = roles_only(&accepted.object, layer);
    let questions = questions(&desired, &facts.children, &passwords);
    let seen = ask(context, &facts.identity, &questions, facts.observed.clone()).await;
    let plan = route(&desired, &seen.observed);
    if plan.primaries.nodes().next().is_none() {
        return Ok(if desired.paused { AT_REST } else { UNDER_WAY });
    }
    let written = write(context, &facts.identity, &facts.children, &plan).await;
    Ok(written.map_or_else(
        |error| {
            tracing::info!(layer = facts.identity.name, error = %Chain(&error), "the Services are not moved");
            UNDER_WAY
        },
        |()| AT_REST,
    ))
}

/// Points the primary's Service, and labels the pods with their roles and with whether the replicas' Service selects them.
async fn write(context: &Context, layer: &LayerIdentity, children: &Children, plan: &Plan) -> Result<(), act::Error> {
    let name = names::primary_service(&layer.name);
    for step in &plan.steps {
        match step {
            // One that is not there yet is made by who leads.
            Step::PointService { node, version: Some(version) } => {
                let live = children.services.get(&name).map(Arc::as_ref);
                let service = primary_service(layer, Some(*node));
                point_service(&context.writer, layer, &service, live, *node, Some(version)).await?;
            }
            Step::LabelPod { node, pod_uid, reads, role } => {
                label_pod(&context.writer, layer, *node, pod_uid, *reads, *role).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::Router;
    use axum::http::{Method, StatusCode};
    use futures::channel::mpsc::unbounded;
    use kube::runtime::reflector;
    use kube::{Client, ResourceExt as _};
    use serde_json::json;

    use super::super::super::context::{Caches, ContextInputs, Defaults, Duty};
    use super::*;
    use crate::act::secrets::RootKey;
    use crate::build::object::MADE;
    use crate::metrics::Metrics;
    use crate::model::NodeId;
    use crate::observe::events::Listeners;
    use crate::observe::kubernetes::Stores;

    /// An API server that has no object, and takes each that is applied.
    fn server() -> Router {
        let missing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).to_string();
        Router::new().fallback(async move |method: Method, body: String| match method {
            Method::PATCH => (StatusCode::OK, body),
            _ => (StatusCode::NOT_FOUND, missing),
        })
    }

    fn context() -> Context {
        let defaults = Defaults {
            engine_image: "valkey:8.1".to_owned(),
            agent_image: "redoubt".to_owned(),
            service_domain: "svc".to_owned(),
            allowed_images: Vec::new(),
            forbids_dedicated: false,
        };
        let inputs = ContextInputs {
            duty: Duty::Route,
            client: Client::new(server(), "shop"),
            metrics: Metrics::new().unwrap(),
            root: RootKey::fixed("root"),
            defaults,
            concurrency: 1,
        };
        let stores = Stores {
            workloads: reflector::store().0,
            services: reflector::store().0,
            pods: reflector::store().0,
            budgets: reflector::store().0,
            claims: reflector::store().0,
        };
        let caches = Caches {
            stores,
            layers: reflector::store().0,
            declared: BTreeMap::new(),
            namespaces: None,
            secrets: reflector::store().0,
            index: Arc::default(),
        };
        Context::new(inputs, caches, Listeners::new().0, unbounded().0)
    }

    fn layer() -> DataLayer {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1",
            "kind": "DataLayer",
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1", "generation": 1},
            "spec": {"mode": "Sentinel"},
            "status": {"initialised": true, "conditions": []},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_pass_that_has_nothing_to_point_builds_no_object() {
        let (context, layer) = (context(), layer());
        let pause = point_services(&context, &layer.metadata, Some(&layer)).await.unwrap();
        assert_eq!((pause, MADE.get()), (UNDER_WAY, 0), "no server answered, so none is known to serve");
    }

    #[tokio::test]
    async fn a_move_of_the_primary_costs_one_object() {
        let [uid, namespace, name] = ["uid-1", "shop", "web"].map(str::to_owned);
        let (context, identity) = (context(), LayerIdentity { uid, namespace, name });
        let mut seen = primary_service(&identity, Some(NodeId::data(0)));
        seen.metadata.resource_version = Some("7".to_owned());
        let services = [(seen.name_any(), Arc::new(seen))].into();
        let children = Children { services, ..Children::default() };
        let step = Step::PointService { node: NodeId::data(1), version: Some("7".to_owned()) };
        let before = MADE.get();
        write(&context, &identity, &children, &Plan { steps: vec![step], ..Plan::default() }).await.unwrap();
        assert_eq!(MADE.get() - before, 1);
    }
}
