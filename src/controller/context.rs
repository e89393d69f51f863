//! What every pass shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use super::absences::Absences;
use super::arguments::OperatorArguments;
use super::backoff::Backoff;
use super::cluster_domain;
use super::config_maps::ConfigMaps;
use super::handovers::Handovers;
use super::pace::Pace;
use super::rejections::Rejections;
use super::secret_cache::SecretCache;
use super::turns::{Turn, Turns};
use super::uses::index::{Index, UsePlace};
use super::uses::memory::Memory;
use super::watches::{NamespaceMeta, SecretMeta, WatchedLayer, WatchedUse};
use crate::act::Writer;
use crate::act::secrets::{PasswordCache, RootKey};
use crate::api::data_layer::DataLayer;
use crate::api::names::OPERATOR;
use crate::metrics::Metrics;
use crate::model::UseKind;
use crate::observe::events::Listeners;
use crate::observe::kubernetes::Stores;
use crate::observe::servers::Pool;
use crate::per_object::PerObject;

/// What this replica of the operator has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It leads: everything.
    Lead,
    /// Another leads, or none does: point the Services at who serves.
    Route,
}

/// Everything that a pass may use; one for as long as this process has the same duty, so that nothing of an earlier leadership
/// is believed.
pub(crate) struct Context {
    pub(crate) duty: Duty,
    /// For reads by name.
    pub client: Client,
    pub writer: Writer,
    pub(crate) recorder: Recorder,
    pub metrics: Metrics,
    /// What the watches know.
    pub stores: Stores,
    pub layers: Store<WatchedLayer>,
    pub declared: BTreeMap<UseKind, Store<WatchedUse>>,
    /// Namespaces, by their metadata; `None`: only one is watched, and Namespace objects may not be read.
    pub namespaces: Option<Store<NamespaceMeta>>,
    /// Which uses name which layer.
    pub index: Arc<Index>,
    /// Secrets as they were last read.
    pub secrets: SecretCache,
    /// ConfigMaps as they were last read.
    pub(crate) config_maps: ConfigMaps,
    /// Uses as they were last seen.
    pub uses: Memory,
    /// Open connections.
    pub pool: Pool,
    /// Subscriptions to Sentinels.
    pub listeners: Listeners,
    pub(crate) passwords: PasswordCache,
    /// Failed passes.
    pub(crate) backoff: Backoff,
    /// When passes began.
    pub(crate) pace: Pace,
    /// Passes over layers that are made at once.
    turns: Turns,
    /// The same over uses.
    use_turns: Turns,
    /// Which unreadable objects were told of.
    pub unreadable: ReportedUnreadable,
    /// Which unreadable uses the events of their layers told of.
    pub(crate) unreadable_uses: ReportedUnreadable,
    /// Moves of primaries that are under way.
    pub(crate) handovers: Handovers,
    /// Starts a pass over a layer.
    pub(crate) wake: UnboundedSender<ObjectRef<WatchedLayer>>,
    /// Which nodes are away, and since when.
    pub(crate) absences: Absences,
    /// Which servers turn clients away.
    pub(crate) rejections: Rejections,
    /// Defaults of layers that are created now.
    pub defaults: Defaults,
}

/// Resource versions of the unreadable objects that were told of, by UID: each is an event once.
#[derive(Debug, Default)]
pub(crate) struct ReportedUnreadable(PerObject<String>);

impl ReportedUnreadable {
    /// Whether this version of the object was not told of yet; from now on it was.
    pub(crate) fn is_news(&self, metadata: &ObjectMeta) -> bool {
        let (uid, version) = (metadata.uid.clone().unwrap_or_default(), metadata.resource_version.clone());
        let version = version.unwrap_or_default();
        self.0.lock().insert(uid, version.clone()) != Some(version)
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.0.retain(lives);
    }
}

/// Defaults that are resolved once for a layer, because a change of them would restart its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub engine_image: String,
    /// Image that the agent is copied from.
    pub agent_image: String,
    /// What follows a Service's name and namespace in its host name.
    pub service_domain: String,
    /// What engine images that layers name begin with; empty: every image is allowed.
    pub allowed_images: Vec<String>,
    /// Whether a new use may have a layer of its own.
    pub(crate) forbids_dedicated: bool,
}

/// What a process has for as long as it has one duty.
#[derive(Clone)]
pub(super) struct ContextInputs {
    pub(super) duty: Duty,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) root: RootKey,
    pub(super) defaults: Defaults,
    /// Passes over layers, and over uses, that are made at once.
    pub(super) concurrency: u16,
}

/// What the watches keep up to date.
pub(super) struct Caches {
    pub(super) stores: Stores,
    pub(super) layers: Store<WatchedLayer>,
    pub(super) declared: BTreeMap<UseKind, Store<WatchedUse>>,
    pub(super) namespaces: Option<Store<NamespaceMeta>>,
    pub(super) secrets: Store<SecretMeta>,
    pub(super) index: Arc<Index>,
}

impl Defaults {
    /// The defaults that the operator was started with.
    pub(super) fn of(arguments: &OperatorArguments) -> Self {
        Self {
            engine_image: arguments.default_engine_image.clone(),
            agent_image: arguments.agent_image.clone(),
            service_domain: cluster_domain::of_services(arguments.cluster_domain.as_deref()),
            allowed_images: arguments.allowed_images.clone(),
            forbids_dedicated: arguments.forbid_dedicated,
        }
    }
}

impl Context {
    /// A context in which no pass was made yet. `wake`: starts a pass over a layer.
    pub(super) fn new(
        inputs: ContextInputs,
        caches: Caches,
        listeners: Listeners,
        wake: UnboundedSender<ObjectRef<WatchedLayer>>,
    ) -> Self {
        let ContextInputs { duty, client, metrics, root, defaults, concurrency } = inputs;
        let Caches { stores, layers, declared, namespaces, secrets, index } = caches;
        Self {
            duty,
            writer: Writer::new(client.clone(), metrics.clone()),
            recorder: Recorder::new(client.clone(), Reporter { controller: OPERATOR.to_owned(), instance: None }),
            client,
            metrics,
            stores,
            layers,
            declared,
            namespaces,
            index,
            secrets: SecretCache::new(secrets),
            config_maps: ConfigMaps::default(),
            uses: Memory::default(),
            pool: Pool::default(),
            listeners,
            passwords: PasswordCache::new(root),
            backoff: Backoff::default(),
            pace: Pace::default(),
            turns: Turns::new(concurrency),
            use_turns: Turns::new(concurrency),
            unreadable: ReportedUnreadable::default(),
            unreadable_uses: ReportedUnreadable::default(),
            handovers: Handovers::default(),
            wake,
            absences: Absences::default(),
            rejections: Rejections::default(),
            defaults,
        }
    }

    /// Whether the watches have seen everything once: before, what exists would look as if it did not. An error: the watches
    /// have ended.
    ///
    /// Asked again by each pass instead of waited for: of several who wait for one of kube 5's stores only the last is woken
    /// (`kube_runtime::utils::delayed_init` polls one receiver for all), and the others' layers would rest without end.
    pub(crate) fn watches_are_complete(&self) -> Result<bool, kube::runtime::reflector::store::WriterDropped> {
        // A pod is not deleted before its claims were read.
        let Stores { workloads, services, pods, budgets, claims: _ } = &self.stores;
        let uses = self.declared.values().map(|store| store.wait_until_ready().now_or_never());
        let seen = [
            workloads.wait_until_ready().now_or_never(),
            services.wait_until_ready().now_or_never(),
            pods.wait_until_ready().now_or_never(),
            budgets.wait_until_ready().now_or_never(),
            self.layers.wait_until_ready().now_or_never(),
            self.namespaces.as_ref().map_or(Some(Ok(())), |store| store.wait_until_ready().now_or_never()),
        ];
        seen.into_iter().chain(uses).try_fold(true, |complete, ready| Ok(ready.transpose()?.is_some() && complete))
    }

    /// Waits until a layer's pass may begin: first come, first served, but for one whose primary moved since its last pass, for which
    /// clients wait. `None`: this process stops.
    pub(super) async fn turn(&self, layer: &ObjectMeta) -> Option<Turn<'_>> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let begun = self.pace.last(&text(&layer.uid));
        let mut moves = self.listeners.last_move(&(text(&layer.namespace), text(&layer.name)));
        let is_news = |moved: &Option<Instant>| moved.is_some_and(|moved| begun.is_some_and(|begun| begun <= moved));
        self.turns.next_or_at_once(async { moves.wait_for(is_news).await.map(drop) }).await
    }

    /// Waits until the pass over a use may begin. `None`: this process stops.
    pub(super) async fn use_turn(&self) -> Option<Turn<'_>> {
        self.use_turns.next().await
    }

    /// Begins no pass any more.
    pub(super) fn end_turns(&self) {
        self.turns.end();
        self.use_turns.end();
    }

    /// Begins a pass over a layer. An error: how long it has to wait.
    pub(super) fn begin(&self, layer: &ObjectMeta) -> Result<(), Duration> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let last_move = self.listeners.moved_at(&(text(&layer.namespace), text(&layer.name)));
        self.pace.begin(&text(&layer.uid), last_move)
    }

    /// A layer, if it is there and can be read.
    pub(crate) fn layer(&self, namespace: &str, name: &str) -> Option<DataLayer> {
        self.layers.get(&ObjectRef::new(name).within(namespace))?.0.as_ref().ok().cloned()
    }

    /// Whether a layer is there and cannot be read: its own pass goes on with what was accepted last.
    pub(crate) fn is_unreadable(&self, namespace: &str, name: &str) -> bool {
        self.layers.get(&ObjectRef::new(name).within(namespace)).is_some_and(|layer| layer.0.is_err())
    }

    /// A use, if it is there.
    pub(crate) fn declared_use(&self, (kind, (namespace, name)): &UsePlace) -> Option<Arc<WatchedUse>> {
        self.declared.get(kind)?.get(&ObjectRef::new_with(name, *kind).within(namespace))
    }

    /// Labels of a namespace, if it is known.
    pub(crate) fn labels_of(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let found = self.namespaces.as_ref()?.get(&ObjectRef::new(namespace))?;
        Some(found.labels().clone())
    }

    /// Drops what belongs to objects that are gone, or that nothing asked for in `unused`.
    pub(crate) fn prune(&self, unused: Duration) {
        let alive: BTreeSet<String> = self.layers.state().iter().filter_map(|layer| layer.uid()).collect();
        let of_uses: BTreeSet<String> =
            self.declared.values().flat_map(Store::state).filter_map(|watched| watched.uid()).collect();
        let pods: BTreeSet<String> = self.stores.pods.state().iter().filter_map(|pod| pod.uid()).collect();
        let workloads: BTreeSet<String> =
            self.stores.workloads.state().iter().filter_map(|known| known.uid()).collect();
        let is_layer = |uid: &str| alive.contains(uid);
        let is_object = |uid: &str| alive.contains(uid) || of_uses.contains(uid);
        // What is new here grows without end unless something is said of it.
        let Self {
            duty: _,
            client: _,
            writer,
            recorder: _,
            metrics: _,
            stores: _,
            layers: _,
            declared: _,
            namespaces: _,
            index: _,
            secrets,
            config_maps,
            uses,
            pool,
            listeners,
            passwords,
            backoff,
            pace,
            turns: _,
            use_turns: _,
            unreadable,
            unreadable_uses,
            handovers,
            wake: _,
            absences,
            rejections,
            defaults: _,
        } = self;
        absences.retain(&workloads);
        pool.retain(&pods);
        listeners.retain(&pods);
        passwords.retain(is_layer);
        pace.retain(is_layer);
        unreadable_uses.retain(is_layer);
        handovers.retain(is_layer);
        uses.retain(is_object);
        backoff.retain(is_object);
        unreadable.retain(is_object);
        secrets.forget_unused(unused);
        config_maps.forget_unused(unused);
        writer.fingerprints().forget_unused(unused);
        rejections.forget_unused(unused);
    }
}
