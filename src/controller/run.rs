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
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;

use super::absences::Absences;
use super::arguments::OperatorArguments;
use super::backoff::Backoff;
use super::config_maps::ConfigMaps;
use super::context::{Context, Defaults, Duty, ReportedUnreadable};
use super::handovers::Handovers;
use super::object_metrics::ObjectMetrics;
use super::pace::Pace;
use super::reconcile::{after_failure, after_use_failure, reconcile, reconcile_use};
use super::rejections::Rejections;
use super::secret_cache::SecretCache;
use super::uses::index::Index;
use super::uses::memory;
use super::uses::relay::{self, Streams};
use super::watches::{all_layers, all_uses, layer_of, namespaces, secrets, uniquely, watched};
use super::{cluster_domain, kinds};
use crate::act::Writer;
use crate::act::secrets::{PasswordCache, RootKey};
use crate::api::names::OPERATOR;
use crate::lease::{self, Stop};
use crate::metrics::{self, Metrics};
use crate::model::UseKind;
use crate::observe::events::Listeners;
use crate::observe::kubernetes::Stores;
use crate::observe::servers::Pool;
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
    loop {
        let kinds = kinds::installed(&client).await;
        let missing: Vec<UseKind> = UseKind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
        tokio::select! {
            () = Box::pin(control_kinds(client.clone(), metrics.clone(), root.clone(), duty, arguments, stop.clone(), &kinds)) => return,
            () = kinds::one_is_installed(&client, &missing) => {}
        }
    }
}

/// Watches and reconciles layers, and uses of these kinds, until told to stop.
async fn control_kinds(
    client: Client,
    metrics: Metrics,
    root: RootKey,
    duty: Duty,
    arguments: &OperatorArguments,
    stop: Stop,
    kinds: &[UseKind],
) {
    let (scope, concurrency) = (arguments.watch_namespace.as_deref(), arguments.concurrency);
    let defaults = Defaults {
        engine_image: arguments.default_engine_image.clone(),
        agent_image: arguments.agent_image.clone(),
        service_domain: cluster_domain::of_services(arguments.cluster_domain.as_deref()),
        allowed_images: arguments.allowed_images.clone(),
        forbids_dedicated: arguments.forbid_dedicated,
    };
    let (workloads, workload_changes) = watched::<StatefulSet>(&client, scope);
    let (services, service_changes) = watched::<Service>(&client, scope);
    let (pods, pod_changes) = watched::<Pod>(&client, scope);
    let (budgets, budget_changes) = watched::<PodDisruptionBudget>(&client, scope);
    // Unbounded, as all queues here: a loop that waits for nothing else empties each, so at most one list of a watch is in it.
    let (layer_news, layers_touched) = unbounded();
    let (use_news, uses_touched) = unbounded();
    let index = Arc::new(Index::default());
    let (layers, layer_changes) = uniquely(all_layers(&client, scope), &(), |_| (), layer_news);
    let (mut declared, mut use_changes) = (BTreeMap::new(), Vec::new());
    for kind in kinds.iter().copied() {
        let indexing = Arc::clone(&index);
        let first = move |event: &_| indexing.note(kind, event);
        let (store, changes) = uniquely(all_uses(&client, scope, kind), &kind, first, use_news.clone());
        declared.insert(kind, store);
        use_changes.push((kind, changes));
    }
    let (secrets, secret_changes) = secrets(&client, scope);
    let (namespaces, namespace_changes) = namespaces(&client, scope);
    let (to_layers, wanted_layers) = unbounded();
    let (listeners, news) = Listeners::new();
    let context = Arc::new(Context {
        duty,
        writer: Writer::new(client.clone(), metrics.clone()),
        recorder: Recorder::new(client.clone(), Reporter { controller: OPERATOR.to_owned(), instance: None }),
        client,
        metrics,
        stores: Stores { workloads, services, pods, budgets },
        layers: layers.clone(),
        declared: declared.clone(),
        namespaces,
        index,
        secrets: SecretCache::new(secrets),
        config_maps: ConfigMaps::default(),
        uses: memory::Memory::default(),
        pool: Pool::default(),
        listeners,
        passwords: PasswordCache::new(root),
        backoff: Backoff::default(),
        pace: Pace::default(),
        unreadable: ReportedUnreadable::default(),
        unreadable_uses: ReportedUnreadable::default(),
        handovers: Handovers::default(),
        wake: to_layers.clone(),
        absences: Absences::default(),
        rejections: Rejections::default(),
        defaults,
    });
    let _included = (duty == Duty::Lead).then(|| include_objects(&context));
    let controller = Controller::for_stream(layer_changes, layers.clone())
        .with_config(ControllerConfig::default().concurrency(concurrency).debounce(DEBOUNCE))
        .owns_stream(workload_changes)
        .owns_stream(service_changes)
        .owns_stream(budget_changes)
        .watches_stream(pod_changes, |pod| layer_of(&pod))
        .reconcile_on(news.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)))
        .reconcile_on(wanted_layers)
        .graceful_shutdown_on(lease::stopped(stop.clone()))
        .run(reconcile, after_failure, Arc::clone(&context));
    let (mut to_uses, mut reconciling_uses) = (BTreeMap::new(), Vec::new());
    for (kind, changes) in use_changes {
        let (sender, wanted) = unbounded();
        to_uses.insert(kind, sender);
        let controller = Controller::for_stream_with(changes, declared[&kind].clone(), kind)
            .with_config(ControllerConfig::default().concurrency(concurrency).debounce(DEBOUNCE))
            .reconcile_on(wanted)
            .graceful_shutdown_on(lease::stopped(stop.clone()))
            .run(reconcile_use, after_use_failure, Arc::clone(&context));
        reconciling_uses.push(controller.for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(error = %Chain(&error), "controller of uses");
            }
        }));
    }
    let reconciling = controller.for_each(async |result| {
        if let Err(error) = result {
            tracing::debug!(error = %Chain(&error), "controller");
        }
    });
    let streams =
        Streams { layers: layers_touched, uses: uses_touched, namespaces: namespace_changes, secrets: secret_changes };
    let relaying = relay::relay(&context, streams, to_layers, to_uses);
    tokio::select! {
        _ = futures::future::join(reconciling, futures::future::join_all(reconciling_uses)) => {}
        () = relaying => {}
        () = prune_caches(&context) => {}
    }
    context.handovers.finish().await;
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
