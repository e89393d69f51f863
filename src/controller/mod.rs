//! The only place where the steps meet: when a pass is made, and what follows from its end.

mod absences;
mod accepted;
mod application_proof;
pub mod backoff;
mod cluster_domain;
pub mod config_maps;
pub mod context;
pub mod data_layer;
pub mod desired;
mod kinds;
mod object_metrics;
mod objects;
mod pace;
mod publish;
mod rejections;
mod resolved;
pub mod routing;
pub mod secret_cache;
pub mod uses;
mod watch_pauses;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config as ControllerConfig};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::absences::Absences;
use self::backoff::Backoff;
use self::config_maps::ConfigMaps;
use self::context::{Context, Defaults, Duty, Proven, Told};
use self::object_metrics::ObjectMetrics;
use self::pace::Pace;
use self::rejections::Rejections;
use self::secret_cache::SecretCache;
use self::uses::index::Index;
use self::uses::relay::{self, News};
use self::uses::{memory, reconcile as use_pass};
use self::watches::{Watched, WatchedUse, all_layers, all_uses, layer_of, namespaces, secrets, uniquely, watched};
use crate::act::Writer;
use crate::act::secrets::{RootKey, Vault};
use crate::cli::OperatorArguments;
use crate::failure::{Class, request};
use crate::lease::{self, Candidate, Stop, Timing};
use crate::metrics::{self, Metrics};
use crate::model::UseKind;
use crate::observe::events::Listeners;
use crate::observe::kubernetes::Stores;
use crate::observe::servers::Pool;
use crate::telemetry::Chain;

/// Name of the Lease, and of the controller in events.
const NAME: &str = "redoubt-operator";
/// Name of the Secret with the root key.
const ROOT_KEY: &str = "redoubt-root-key";
/// Events of one change arrive together; a pass that waits this long sees all of them.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Pause while the watches are still filling after a start: a list takes some 10 ms.
const WATCHES_INCOMPLETE: Duration = Duration::from_millis(50);
/// Pause while nobody has made the root key: the first leader of a new installation does.
const ROOT_KEY_MISSING: Duration = Duration::from_secs(1);
/// How often connections of pods that are gone are closed.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// An object that no pass asked for in this time is gone, or its layer has failed for as long: what is known of it costs one apply.
const UNUSED: Duration = Duration::from_hours(1);

/// Why the operator ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error("cannot find out how to reach Kubernetes")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// There is no way to the cluster.
    #[error("cannot find out how to reach Kubernetes")]
    Inferred(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot make a Kubernetes client")]
    Client(#[source] Box<kube::Error>),
    /// The port or the metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Runs the operator until it is told to stop.
pub async fn operate(arguments: OperatorArguments) -> Result<(), Error> {
    let client = client(&arguments).await?;
    let metrics = Metrics::new()?;
    let shutdown = shutdown()?;
    let candidate = Candidate {
        namespace: arguments.namespace.clone(),
        name: NAME.to_owned(),
        identity: identity(&arguments),
        timing: Timing::lasting(Duration::from_secs(arguments.lease_duration)),
    };
    let means = || (client.clone(), metrics.clone(), arguments.clone());
    let lead = |stop| {
        let (client, metrics, arguments) = means();
        async move {
            let _leads = metrics.leads();
            work(client, metrics, &arguments, stop).await;
        }
    };
    let stand_by = |stop| {
        let (client, metrics, arguments) = means();
        async move { stand_by(client, metrics, &arguments, stop).await }
    };
    let leading = lease::lead(client.clone(), candidate, shutdown, lead, stand_by);
    let answering = say_when_ready(client.clone(), metrics.clone());
    tokio::select! {
        () = leading => Ok(()),
        ended = metrics::serve(metrics.clone(), arguments.listen) => Ok(ended?),
        () = answering => Ok(()),
    }
}

/// A client whose requests are not repeated behind our back: the loop is the retry.
async fn client(arguments: &OperatorArguments) -> Result<Client, Error> {
    let mut config = match &arguments.kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|source| Error::Client(Box::new(source)))
}

/// The pod's name, and what tells two runs of one container apart.
fn identity(arguments: &OperatorArguments) -> String {
    let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| NAME.to_owned());
    format!("{}_{:08x}", arguments.identity.clone().unwrap_or_else(host), rand::random::<u32>())
}

/// Becomes `true` at SIGTERM or SIGINT.
fn shutdown() -> Result<Stop, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stop.send(true);
    });
    Ok(stopping)
}

/// Says ready once the API server has answered; never returns.
async fn say_when_ready(client: Client, metrics: Metrics) {
    while let Err(error) = request("read", "the version of the API server", client.apiserver_version()).await {
        tracing::warn!(error = %Chain(&error), "the API server does not answer");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    metrics.ready();
    std::future::pending::<()>().await;
}

/// The work of the leader: looks after all layers until told to stop.
async fn work(client: Client, metrics: Metrics, arguments: &OperatorArguments, stop: Stop) {
    let root = match RootKey::load(client.clone(), &arguments.namespace, ROOT_KEY).await {
        Ok(root) => root,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot lead without the root key");
            return;
        }
    };
    control(client, metrics, root, Duty::Lead, arguments, stop).await;
}

/// What a replica does that does not lead, until told to stop or to lead.
async fn stand_by(client: Client, metrics: Metrics, arguments: &OperatorArguments, stop: Stop) {
    let root = loop {
        match RootKey::read(client.clone(), &arguments.namespace, ROOT_KEY).await {
            Ok(Some(root)) => break root,
            Ok(None) => tracing::debug!("there is no root key yet"),
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot stand by without the root key"),
        }
        tokio::time::sleep(ROOT_KEY_MISSING).await;
    };
    control(client, metrics, root, Duty::Route, arguments, stop).await;
}

/// Watches and reconciles until told to stop; begins again when the definition of a kind of use is installed that was not there.
pub async fn control(
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
            () = control_kinds(client.clone(), metrics.clone(), root.clone(), duty, arguments, stop.clone(), &kinds) => return,
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
    };
    let (workloads, workload_changes) = watched::<StatefulSet>(&client, scope);
    let (services, service_changes) = watched::<Service>(&client, scope);
    let (pods, pod_changes) = watched::<Pod>(&client, scope);
    let (budgets, budget_changes) = watched::<PodDisruptionBudget>(&client, scope);
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
        recorder: Recorder::new(client.clone(), Reporter { controller: NAME.to_owned(), instance: None }),
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
        vault: Vault::new(root),
        backoff: Backoff::default(),
        pace: Pace::default(),
        told: Told::default(),
        told_of_uses: Told::default(),
        proven: Proven::default(),
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
    let news =
        News { layers: layers_touched, uses: uses_touched, namespaces: namespace_changes, secrets: secret_changes };
    let relaying = relay::relay(&context, news, to_layers, to_uses);
    tokio::select! {
        _ = futures::future::join(reconciling, futures::future::join_all(reconciling_uses)) => {}
        () = relaying => {}
        () = keep_house(&context, &layers) => {}
    }
}

/// Lets the operator's metrics tell of the objects, for as long as the answer lives.
fn include_objects(context: &Context) -> Option<metrics::Included> {
    let uses = context.declared.values().cloned().collect();
    let objects = ObjectMetrics::new(context.layers.clone(), uses).map_err(metrics::Error::from);
    let included = objects.and_then(|objects| context.metrics.include(&objects));
    included.inspect_err(|error| tracing::error!(error = %Chain(error), "no metrics of objects")).ok()
}

/// Closes and forgets what belongs to the dead, for ever.
async fn keep_house(context: &Context, layers: &Store<Watched>) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        context.forget_the_dead();
        let alive: std::collections::BTreeSet<String> = layers.state().iter().filter_map(|layer| layer.uid()).collect();
        context.vault.retain(|uid| alive.contains(uid));
        let uses = context.uids_of_uses();
        context.uses.retain(|uid| alive.contains(uid) || uses.contains(uid));
        context.backoff.retain(|uid| alive.contains(uid) || uses.contains(uid));
        context.pace.retain(|uid| alive.contains(uid));
        context.told.retain(|uid| alive.contains(uid) || uses.contains(uid));
        context.told_of_uses.retain(|uid| alive.contains(uid));
        context.proven.retain(|uid| alive.contains(uid));
        context.secrets.forget_unused(UNUSED);
        context.config_maps.forget_unused(UNUSED);
        context.writer.fingerprints().forget_unused(UNUSED);
        context.rejections.forget_unused(UNUSED);
    }
}

/// One pass over one layer.
async fn reconcile(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, data_layer::Error> {
    let layer = match &watched.0 {
        Ok(layer) => layer,
        Err(invalid) => {
            if context.duty == Duty::Lead && context.told.is_news(&invalid.metadata) {
                let meanwhile = "the layer is kept as it was accepted last until it is corrected";
                tell_unreadable(watched.object_ref(&()), &context, &invalid.error, meanwhile).await;
            }
            return go_on_unread(&context, &invalid.metadata).await;
        }
    };
    if layer.metadata.deletion_timestamp.is_some() {
        // Owner references do the rest.
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| data_layer::Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    if let Err(rest) = context.begin(&layer.metadata) {
        return Ok(Action::requeue(rest));
    }
    let started = Instant::now();
    let result = match context.duty {
        Duty::Lead => data_layer::pass(&context, layer).await,
        Duty::Route => routing::pass(&context, &layer.metadata, Some(layer)).await,
    };
    let outcome = result.as_ref().map_or_else(|error| error.class().word(), |_| "ok");
    context.metrics.pass(outcome, started.elapsed());
    Ok(Action::requeue(result?))
}

/// A pass over a layer whose object cannot be read: it goes on as it was accepted last.
async fn go_on_unread(context: &Context, metadata: &ObjectMeta) -> Result<Action, data_layer::Error> {
    if metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| data_layer::Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    if let Err(rest) = context.begin(metadata) {
        return Ok(Action::requeue(rest));
    }
    if context.duty == Duty::Route {
        return Ok(Action::requeue(routing::pass(context, metadata, None).await?));
    }
    Ok(data_layer::pass_unreadable(context, metadata).await?.map_or_else(Action::await_change, Action::requeue))
}

/// An object that no longer parses is told of; what runs goes on running.
async fn tell_unreadable(object: ObjectReference, context: &Context, words: &str, meanwhile: &str) {
    tracing::warn!(kind = object.kind, name = object.name, error = words, "cannot read the object");
    let note = format!("the stored object cannot be read; {meanwhile}: {words}");
    publish::warn(context, &object, "Unreadable", "Read", &note).await;
}

/// How long a layer is left alone after a failed pass.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's controller calls")]
fn after_failure(watched: Arc<Watched>, error: &data_layer::Error, context: Arc<Context>) -> Action {
    let pause = context.backoff.failed(&watched.uid().unwrap_or_default(), error.class(), rand::random());
    let (layer, namespace) = (watched.name_any(), watched.namespace().unwrap_or_default());
    if error.class() == Class::Conflict {
        tracing::debug!(layer, namespace, error = %Chain(error), "somebody else was faster");
    } else {
        tracing::warn!(layer, namespace, class = error.class().word(), error = %Chain(error), "pass failed");
    }
    Action::requeue(pause)
}

/// One pass over one use.
async fn reconcile_use(watched: Arc<WatchedUse>, context: Arc<Context>) -> Result<Action, data_layer::Error> {
    if context.duty == Duty::Route {
        return Ok(Action::await_change());
    }
    let declared = match &watched.0 {
        Ok(declared) => declared,
        Err(invalid) => {
            if context.told.is_news(&invalid.metadata) {
                let meanwhile =
                    "its layer keeps its user, its policy and its functions as they are until it is corrected";
                tell_unreadable(watched.object_ref(&invalid.kind), &context, &invalid.error, meanwhile).await;
            }
            return Ok(Action::await_change());
        }
    };
    if declared.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !context.watches_are_complete().map_err(|_| data_layer::Error::WatchesEnded)? {
        return Ok(Action::requeue(WATCHES_INCOMPLETE));
    }
    let pause = use_pass::pass(&context, declared).await?;
    context.backoff.succeeded(&declared.uid().unwrap_or_default());
    Ok(Action::requeue(pause))
}

/// How long a use is left alone after a failed pass.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's controller calls")]
fn after_use_failure(watched: Arc<WatchedUse>, error: &data_layer::Error, context: Arc<Context>) -> Action {
    let pause = context.backoff.failed(&watched.uid().unwrap_or_default(), error.class(), rand::random());
    let (name, namespace) = (watched.name_any(), watched.namespace().unwrap_or_default());
    let (kind, class) = (watched.kind().words().kind, error.class().word());
    tracing::warn!(kind, name, namespace, class, error = %Chain(error), "pass over a use failed");
    Action::requeue(pause)
}
