//! What is watched and reconciled for as long as this process has one duty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::runtime::Controller;
use kube::runtime::controller::Config as ControllerConfig;
use kube::runtime::reflector::ObjectRef;

use super::arguments::OperatorArguments;
use super::context::{Caches, Context, ContextInputs, Defaults, Duty};
use super::kinds;
use super::object_metrics::ObjectMetrics;
use super::reconcile::{after_failure, after_use_failure, reconcile, reconcile_use};
use super::uses::index::Index;
use super::uses::relay::{self, Streams};
use super::watches::{all_layers, all_uses, claims, layer_of, namespaces, secrets, uniquely, watched};
use crate::act::secrets::RootKey;
use crate::lease::{self, Stop};
use crate::metrics::{self, Metrics};
use crate::model::UseKind;
use crate::observe::events::Listeners;
use crate::observe::kubernetes::Stores;
use crate::telemetry::Chain;

/// Events of one change arrive together; a pass that waits this long sees all of them.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often connections of pods that are gone are closed.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// An object that no pass asked for in this time is gone, or its layer has failed for as long: what is known of it costs one apply.
const UNUSED: Duration = Duration::from_hours(1);

/// Watches and reconciles until told to stop; begins again when the definition of a kind of use is installed that was not there.
pub async fn run_controllers(
    client: Client,
    metrics: Metrics,
    root: RootKey,
    duty: Duty,
    arguments: &OperatorArguments,
    stop: Stop,
) {
    let (defaults, concurrency) = (Defaults::of(arguments), arguments.concurrency);
    let inputs = ContextInputs { duty, client, metrics, root, defaults, concurrency };
    loop {
        let kinds = kinds::installed(&inputs.client).await;
        let missing: Vec<UseKind> = UseKind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
        tokio::select! {
            () = Box::pin(control_kinds(inputs.clone(), arguments, stop.clone(), &kinds)) => return,
            () = kinds::one_is_installed(&inputs.client, &missing) => {}
        }
    }
}

/// Watches and reconciles layers, and uses of these kinds, until told to stop.
async fn control_kinds(inputs: ContextInputs, arguments: &OperatorArguments, stop: Stop, kinds: &[UseKind]) {
    let (client, scope) = (&inputs.client, arguments.watch_namespace.as_deref());
    // Without a bound of its own: see `turns`.
    let config = ControllerConfig::default().debounce(DEBOUNCE);
    let (workloads, workload_changes) = watched::<StatefulSet>(client, scope);
    let (services, service_changes) = watched::<Service>(client, scope);
    let (pods, pod_changes) = watched::<Pod>(client, scope);
    let (budgets, budget_changes) = watched::<PodDisruptionBudget>(client, scope);
    let (claims, claim_changes) = claims(client, scope);
    // Unbounded, as all queues here: a loop that waits for nothing else empties each, so at most one list of a watch is in it.
    let (layer_news, layers_touched) = unbounded();
    let (use_news, uses_touched) = unbounded();
    let index = Arc::new(Index::default());
    let (layers, layer_changes) = uniquely(all_layers(client, scope), &(), |_| (), layer_news);
    let (mut declared, mut use_changes) = (BTreeMap::new(), Vec::new());
    for kind in kinds.iter().copied() {
        let indexing = Arc::clone(&index);
        let first = move |event: &_| indexing.note(kind, event);
        let (store, changes) = uniquely(all_uses(client, scope, kind), &kind, first, use_news.clone());
        declared.insert(kind, store);
        use_changes.push((kind, changes));
    }
    let (secrets, secret_changes) = secrets(client, scope);
    let (namespaces, namespace_changes) = namespaces(client, scope);
    let (to_layers, wanted_layers) = unbounded();
    let (listeners, news) = Listeners::new();
    let stores = Stores { workloads, services, pods, budgets, claims };
    let caches = Caches { stores, layers: layers.clone(), declared, namespaces, secrets, index };
    let context = Arc::new(Context::new(inputs, caches, listeners, to_layers.clone()));
    let _included = (context.duty == Duty::Lead).then(|| include_objects(&context));
    let reconciling_layers = Controller::for_stream(layer_changes, layers)
        .with_config(config.clone())
        .owns_stream(workload_changes)
        .owns_stream(service_changes)
        .owns_stream(budget_changes)
        .watches_stream(pod_changes, |pod| layer_of(&pod))
        .watches_stream(claim_changes, |claim| layer_of(&claim))
        .reconcile_on(news.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)))
        .reconcile_on(wanted_layers)
        .graceful_shutdown_on(lease::stopped(stop.clone()))
        .run(reconcile, after_failure, Arc::clone(&context))
        .for_each(async |result| log_error(result, "controller of layers"));
    let (mut to_uses, mut reconciling_uses) = (BTreeMap::new(), Vec::new());
    for (kind, changes) in use_changes {
        let (sender, wanted) = unbounded();
        to_uses.insert(kind, sender);
        let reconciling = Controller::for_stream_with(changes, context.declared[&kind].clone(), kind)
            .with_config(config.clone())
            .reconcile_on(wanted)
            .graceful_shutdown_on(lease::stopped(stop.clone()))
            .run(reconcile_use, after_use_failure, Arc::clone(&context))
            .for_each(async |result| log_error(result, "controller of uses"));
        reconciling_uses.push(reconciling);
    }
    let streams =
        Streams { layers: layers_touched, uses: uses_touched, namespaces: namespace_changes, secrets: secret_changes };
    let relaying = relay::relay(&context, streams, to_layers, to_uses);
    tokio::select! {
        _ = futures::future::join(reconciling_layers, futures::future::join_all(reconciling_uses)) => {}
        () = relaying => {}
        () = prune_caches(&context) => {}
        () = end_turns(&context, stop) => {}
    }
    context.handovers.finish().await;
}

/// Has the passes that wait for their turn end when this process has to stop. Never ends itself: those that were begun are waited for.
async fn end_turns(context: &Context, stop: Stop) {
    lease::stopped(stop).await;
    context.end_turns();
    std::future::pending::<()>().await;
}

/// Errors of passes were logged where they arose; these are of the controller itself.
fn log_error<T, E: std::error::Error + 'static>(result: Result<T, E>, controller: &str) {
    if let Err(error) = result {
        tracing::debug!(controller, error = %Chain(&error), "controller");
    }
}

/// Drops what belongs to objects that are gone, again and again.
async fn prune_caches(context: &Context) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        context.prune(UNUSED);
    }
}

/// Lets the operator's metrics tell of the objects, for as long as the answer lives.
fn include_objects(context: &Context) -> Option<metrics::IncludedMetrics> {
    let uses = context.declared.values().cloned().collect();
    let objects = ObjectMetrics::new(context.layers.clone(), uses).map_err(metrics::Error::from);
    let included = objects.and_then(|objects| context.metrics.include(&objects));
    included.inspect_err(|error| tracing::error!(error = %Chain(error), "no metrics of objects")).ok()
}
