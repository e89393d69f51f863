//! What the parts of one agent share: the configuration, the lineage, what the engine is doing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::agent_password::{AgentPassword, refusal};
use super::cluster::files;
use super::config::{Environment, Error as ConfigError, parse_node_config, read_node_config_text};
use super::counters::Counters;
use super::functions::file::FunctionFile;
use super::health::Health;
use super::shared_health::SharedHealth;
use super::{Error, chain, durable};
use crate::model::audit::{AuditMark, AuditReport};
use crate::model::cluster::ViewAnswer;
use crate::model::lineage::{Activity, Ancestry, Aside, Lineage, LineageAnswer};
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::{Address, NodeKind};
use crate::redis::{Class, Connection, Endpoint};

/// How long a node must have waited for a person before it tells others: in a failover some polls may be older than others.
const REPORTED_AFTER: Duration = Duration::from_secs(3);

/// For how long a notice is told, and how many are.
const NOTICED_FOR: Duration = Duration::from_mins(10);
const NOTICES: usize = 3;
/// For how long a refusal is told: what refuses is asked again within a third of it.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The shared state. Locks are held for a copy, never across an await.
pub(crate) struct State {
    health: SharedHealth,
    counters: Arc<Counters>,
    functions: Arc<FunctionFile>,
    inner: Mutex<Inner>,
}

/// What is known of the files that the engine loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// No engine that runs has read them.
    Unread,
    /// The same, and they were put in the place of a stranger's.
    TakenBack,
    /// The running engine has.
    Read,
}

struct Inner {
    password: AgentPassword,
    /// The users that the server was started with.
    users: String,
    /// Which servers refuse a user of ours, in words, and since when that is known.
    refusals: BTreeMap<(String, String), (String, Instant)>,
    config: Arc<NodeConfig>,
    /// What `config` was parsed from, once it was read again.
    config_text: String,
    config_trouble: Option<String>,
    /// When the configuration was read last: the agent does so before each poll.
    polled: Instant,
    /// All addresses of data nodes that a document declared since the agent began.
    declared: BTreeSet<Address>,
    activity: Activity,
    lineage: Option<Lineage>,
    /// Whether the volume was read: before that nothing is known of what it holds.
    is_read: bool,
    accepting: bool,
    /// Why it waits for a person, and since when.
    needs_person: Option<(String, Instant)>,
    had_keys: bool,
    trouble: Option<String>,
    announced: Option<Address>,
    hit_ratio: Option<f64>,
    audit: Option<Arc<AuditReport>>,
    audit_mark: AuditMark,
    repaired: u64,
    shrunk: u64,
    own_reads: (u64, u64),
    files: Files,
    ancestry: Ancestry,
    aside: Vec<Aside>,
    unusable: Option<String>,
    notices: Vec<(String, Instant)>,
    sentinels: BTreeMap<Address, Connection>,
    view: Option<ViewAnswer>,
}

impl State {
    /// The state of a node whose engine is not started yet.
    pub(crate) fn new(config: NodeConfig, environment: &Environment) -> Result<Self, ConfigError> {
        let is_read = config.node.kind == NodeKind::Sentinel;
        let view = config.cluster.as_ref().and_then(|cluster| files::recorded_view(environment, cluster));
        Ok(Self {
            health: SharedHealth::default(),
            counters: Arc::default(),
            functions: Arc::default(),
            inner: Mutex::new(Inner {
                password: AgentPassword::read(environment)?,
                users: String::new(),
                refusals: BTreeMap::new(),
                polled: Instant::now(),
                declared: addresses(&config).collect(),
                config: Arc::new(config),
                config_text: String::new(),
                config_trouble: None,
                activity: Activity::Deciding,
                lineage: None,
                is_read,
                accepting: false,
                needs_person: None,
                had_keys: environment.had_keys().exists(),
                trouble: None,
                announced: None,
                hit_ratio: None,
                audit: None,
                audit_mark: AuditMark::default(),
                repaired: 0,
                shrunk: 0,
                own_reads: (0, 0),
                files: Files::Unread,
                ancestry: Ancestry::default(),
                aside: Vec::new(),
                unusable: None,
                notices: Vec::new(),
                sentinels: BTreeMap::new(),
                view,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every write is one assignment: what a panicking holder left is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> Arc<NodeConfig> {
        Arc::clone(&self.lock().config)
    }

    /// Reads the configuration again: the operator changes it while the engine runs (peers come and go) and while a node
    /// waits for a person's decision. Where it cannot be read, the last one stays in force. So it does the agents' password.
    pub(crate) fn refresh_config(&self, environment: &Environment) {
        let text = read_node_config_text(environment);
        let mut inner = self.lock();
        inner.polled = Instant::now();
        inner.password.refresh(environment);
        // Four times a second, and hardly ever another.
        let parsed = text.and_then(|text| {
            let is_known = inner.config_trouble.is_none() && inner.config_text == text;
            if is_known { Ok(None) } else { parse_node_config(environment, &text).map(|config| Some((config, text))) }
        });
        let trouble = match parsed {
            Ok(None) => None,
            Ok(Some((config, text))) => {
                inner.declared.extend(addresses(&config));
                (inner.config, inner.config_text) = (Arc::new(config), text);
                None
            }
            Err(error) => Some(chain(&error)),
        };
        if trouble.is_some() && trouble != inner.config_trouble {
            tracing::warn!(error = trouble, "the last document that could be read stays in force");
        }
        inner.config_trouble = trouble;
    }

    /// Time since the agent looked last: it reads its configuration before each poll, and each time that it asks the boot rule.
    pub(crate) fn since_polled(&self) -> Duration {
        self.lock().polled.elapsed()
    }

    /// What the engine is doing.
    pub(crate) fn set_activity(&self, activity: Activity) {
        self.lock().activity = activity;
    }

    pub(crate) fn lineage(&self) -> Option<Lineage> {
        self.lock().lineage.clone()
    }

    pub(crate) fn set_lineage(&self, lineage: Option<Lineage>) {
        let mut inner = self.lock();
        (inner.lineage, inner.is_read) = (lineage, true);
    }

    /// Whether the volume was read. A Sentinel's holds no data.
    pub(crate) fn is_read(&self) -> bool {
        self.lock().is_read
    }

    /// Whether the node carries out a person's decision for its own data.
    pub(crate) fn is_accepting(&self) -> bool {
        self.lock().accepting
    }

    pub(crate) fn set_accepting(&self, accepting: bool) {
        let before = std::mem::replace(&mut self.lock().accepting, accepting);
        if accepting && !before {
            tracing::warn!("a person chose this node's data: it becomes primary once no other node runs");
        }
    }

    /// Replaces why it waits for a person, and logs it when it changes.
    pub(crate) fn set_needs_person(&self, why: Option<String>) {
        let before = {
            let known = &mut *self.lock();
            let since = known.needs_person.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            std::mem::replace(&mut known.needs_person, why.clone().map(|why| (why, since)))
        };
        if let Some(why) = why.filter(|why| before.is_none_or(|(before, _)| *why != before)) {
            tracing::warn!(why, "this does not end by itself: a person may decide by redoubt.dev/accept-loss");
        }
    }

    /// Whether the layer is known to have had data: its document says that it was Ready, or this pod's server had keys.
    pub(crate) fn is_initialised(&self) -> bool {
        let inner = self.lock();
        inner.config.initialised || inner.had_keys
    }

    /// Notes that the server has keys, where a container of this pod that restarts will find it and a new pod will not: the
    /// operator's word that the layer was Ready comes later, and the volume may be what was lost.
    pub(crate) fn note_keys(&self, environment: &Environment) {
        if !self.lock().had_keys {
            match durable::replace(&environment.had_keys(), "") {
                Ok(()) => self.lock().had_keys = true,
                Err(error) => tracing::warn!(error = %chain(&error), "tried again with the next poll"),
            }
        }
    }

    /// The verdict on the engine.
    pub(crate) fn health(&self) -> Health {
        self.health.get()
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// See [`SharedHealth::first_ready`].
    pub(crate) async fn first_ready(&self, within: Duration) {
        self.health.first_ready(within).await;
    }

    /// What the server's functions counted.
    pub(crate) const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What is known of the server's functions.
    pub(crate) const fn functions(&self) -> &Arc<FunctionFile> {
        &self.functions
    }

    /// What keeps the agent from writing its files, in words that name the file.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Replaces the trouble, and logs it when it changes.
    pub(crate) fn set_trouble(&self, error: Option<&Error>) {
        let trouble = error.map(|error| chain(error));
        let before = std::mem::replace(&mut self.lock().trouble, trouble.clone());
        match (&before, &trouble) {
            (_, Some(now)) if before != trouble => tracing::error!(trouble = now, "the node cannot write its files"),
            (Some(_), None) => tracing::info!("the node's files are written again"),
            _ => {}
        }
    }

    /// The address that the running server announces: the declared one, but for a while after a Service came back with another.
    pub(crate) fn announced(&self) -> Option<Address> {
        self.lock().announced.clone()
    }

    pub(crate) fn set_announced(&self, address: Option<Address>) {
        self.lock().announced = address;
    }

    /// Hits by reads over the last minutes; `None`: there were no reads.
    pub(crate) fn hit_ratio(&self) -> Option<f64> {
        self.lock().hit_ratio
    }

    pub(crate) fn set_hit_ratio(&self, ratio: Option<f64>) {
        self.lock().hit_ratio = ratio;
    }

    /// What the last whole pass over the keys found.
    pub(crate) fn audit(&self) -> Option<Arc<AuditReport>> {
        self.lock().audit.clone()
    }

    pub(crate) fn set_audit(&self, report: Option<AuditReport>) {
        let mark = report.as_ref().map(AuditReport::mark).unwrap_or_default();
        let report = report.map(Arc::new);
        let inner = &mut *self.lock();
        (inner.audit, inner.audit_mark) = (report, mark);
    }

    /// Keys that the agent gave an expiry since it began.
    pub(crate) fn repaired(&self) -> u64 {
        self.lock().repaired
    }

    pub(crate) fn note_repaired(&self, keys: u64) {
        self.lock().repaired += keys;
    }

    /// Keys that the agent removed since it began because their use took more memory than it may.
    pub(crate) fn shrunk(&self) -> u64 {
        self.lock().shrunk
    }

    pub(crate) fn note_shrunk(&self, keys: u64) {
        self.lock().shrunk += keys;
    }

    /// Reads of the agent's own since it began that found their key, and that did not: they say nothing of applications.
    pub(crate) fn own_reads(&self) -> (u64, u64) {
        self.lock().own_reads
    }

    pub(crate) fn note_own_reads(&self, hits: usize, misses: usize) {
        let more = |count: u64, more: usize| count.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        let own = &mut self.lock().own_reads;
        *own = (more(own.0, hits), more(own.1, misses));
    }

    /// Notes whether the running engine has read its files.
    pub(crate) fn set_loaded(&self, loaded: bool) {
        let files = &mut self.lock().files;
        *files = match (loaded, *files) {
            (true, _) => Files::Read,
            (false, Files::TakenBack) => Files::TakenBack,
            (false, Files::Read | Files::Unread) => Files::Unread,
        };
    }

    /// Whether the running engine has read its files.
    pub(crate) fn is_loaded(&self) -> bool {
        self.lock().files == Files::Read
    }

    /// Notes that the node has its own files back, in the place of a stranger's.
    pub(crate) fn note_taken_back(&self) {
        self.lock().files = Files::TakenBack;
    }

    /// Whether the node has its own files back, and no engine has read them since: others may still have the stranger's data.
    pub(crate) fn is_taken_back(&self) -> bool {
        self.lock().files == Files::TakenBack
    }

    /// The histories that the node's data contains.
    pub(crate) fn ancestry(&self) -> Ancestry {
        self.lock().ancestry.clone()
    }

    pub(crate) fn set_ancestry(&self, ancestry: Ancestry) {
        self.lock().ancestry = ancestry;
    }

    /// Whether a document that this agent read declared a data node at that address. A node keeps its old address for a while after its
    /// Service came back with another.
    pub(crate) fn was_declared(&self, address: &Address) -> bool {
        self.lock().declared.contains(address)
    }

    /// What the node keeps aside.
    pub(crate) fn aside(&self) -> Vec<Aside> {
        self.lock().aside.clone()
    }

    /// Replaces what is told of it.
    pub(crate) fn set_aside(&self, aside: Vec<Aside>) {
        self.lock().aside = aside;
    }

    /// Replaces why the node's data cannot be used, and logs it when it changes ([`LineageAnswer::unusable`]).
    pub(crate) fn set_unusable(&self, reason: Option<&str>) {
        let before = std::mem::replace(&mut self.lock().unusable, reason.map(str::to_owned));
        match (&before, reason) {
            (_, Some(now)) if before.as_deref() != reason => {
                tracing::error!(reason = now, "the node's data cannot be used");
            }
            (Some(_), None) => tracing::info!("the node's data is used again"),
            _ => {}
        }
    }

    /// Tells for some minutes what was done about the server ([`LineageAnswer::notices`]).
    pub(crate) fn notice(&self, words: String) {
        let notices = &mut self.lock().notices;
        notices.retain(|(known, at)| is_recent(*at) && *known != words);
        notices.push((words, Instant::now()));
        let most = notices.len().saturating_sub(NOTICES);
        notices.drain(..most);
    }

    /// The connection to a Sentinel on which it answered last.
    pub(crate) fn kept_connection(&self, sentinel: &Address) -> Option<Connection> {
        self.lock().sentinels.get(sentinel).cloned()
    }

    /// Keeps a connection to a declared Sentinel for the next question; `None`: the next question makes another.
    pub(crate) fn keep_connection(&self, sentinel: &Address, connection: Option<Connection>) {
        let Inner { sentinels, config, .. } = &mut *self.lock();
        sentinels.retain(|known, _| known != sentinel && config.sentinels.values().any(|declared| declared == known));
        sentinels.extend(connection.map(|connection| (sentinel.clone(), connection)));
    }

    /// Replaces what the server believes of the Cluster. It stays what it was while the server is off.
    pub(crate) fn set_view(&self, view: Option<ViewAnswer>) {
        self.lock().view = view;
    }

    /// What peers are told.
    pub(crate) fn lineage_answer(&self) -> LineageAnswer {
        let inner = self.lock();
        LineageAnswer {
            layer_uid: inner.config.layer.uid.clone(),
            ordinal: inner.config.node.ordinal,
            activity: inner.activity,
            initialised: inner.config.initialised || inner.had_keys,
            accepting: inner.accepting,
            needs_person: inner.needs_person.as_ref().and_then(reason_if_lasting),
            lineage: inner.lineage.clone(),
            loaded: inner.files == Files::Read,
            ancestry: inner.ancestry.clone(),
            aside: inner.aside.clone(),
            unusable: inner.unusable.clone(),
            audit: (inner.config.node.kind == NodeKind::Data).then(|| inner.audit_mark.clone()),
            view: inner.view.clone(),
            notices: refusals(&inner)
                .chain(inner.notices.iter().filter(|(_, at)| is_recent(*at)).map(|(words, _)| words.clone()))
                .collect(),
        }
    }

    /// A data node's server, as the agents' user.
    pub(crate) fn data_endpoint(&self, address: &Address) -> Endpoint {
        self.endpoint(address.0.clone(), REDIS_PORT)
    }

    /// A Sentinel, as the agents' user.
    pub(crate) fn sentinel_endpoint(&self, address: &Address) -> Endpoint {
        self.endpoint(address.0.clone(), SENTINEL_PORT)
    }

    /// The server next to us.
    pub(crate) fn own_endpoint(&self, environment: &Environment) -> Endpoint {
        let address = environment.bind.map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
        let port = match self.lock().config.node.kind {
            NodeKind::Data => REDIS_PORT,
            NodeKind::Sentinel => SENTINEL_PORT,
        };
        self.endpoint(address, port)
    }

    fn endpoint(&self, address: String, port: u16) -> Endpoint {
        self.lock().password.endpoint(address, port)
    }

    /// A new connection to the server next to us.
    pub(crate) async fn open_own(&self, environment: &Environment) -> crate::redis::Result<Connection> {
        let endpoint = self.own_endpoint(environment);
        let opened = Connection::open(&endpoint).await;
        self.note_refusal(&endpoint, opened.as_ref().err());
        let connection = opened?;
        self.lock().password.note_login(&endpoint, &connection);
        Ok(connection)
    }

    /// Notes whether a server refuses a user of ours, and logs it when that changes.
    pub(crate) fn note_refusal(&self, endpoint: &Endpoint, error: Option<&crate::redis::Error>) {
        let of = (endpoint.name(), endpoint.username.clone());
        let Some(error) = error else {
            if self.lock().refusals.remove(&of).is_some() {
                tracing::info!(address = of.0, user = of.1, "the server takes the user again");
            }
            return;
        };
        if !matches!(error.class(), Class::Denied | Class::Full) {
            return;
        }
        let words = refusal(&endpoint.username, error);
        let before = self.lock().refusals.insert(of, (words.clone(), Instant::now()));
        if before.is_none_or(|(known, _)| known != words) {
            tracing::error!(reason = words, "a server refuses a user of the layer");
        }
    }

    /// Which servers refuse a user of ours, in words.
    pub(crate) fn refusals(&self) -> Vec<String> {
        refusals(&self.lock()).collect()
    }

    /// Notes the users that the server is started with.
    pub(crate) fn set_users(&self, users: String) {
        self.lock().users = users;
    }

    /// Asks of the agents' password and of the users that the server was started with.
    pub(super) fn with_agent_password<T>(&self, ask: impl FnOnce(&AgentPassword, &str) -> T) -> T {
        let inner = self.lock();
        ask(&inner.password, &inner.users)
    }
}

fn refusals(inner: &Inner) -> impl Iterator<Item = String> {
    let told = inner.refusals.values().filter(|(_, at)| at.elapsed() < REFUSED_FOR);
    told.map(|(words, _)| words.clone())
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < NOTICED_FOR
}

fn reason_if_lasting((why, since): &(String, Instant)) -> Option<String> {
    (since.elapsed() >= REPORTED_AFTER).then(|| why.clone())
}

/// The addresses of all data nodes that a document declares, of other shards too.
fn addresses(config: &NodeConfig) -> impl Iterator<Item = Address> {
    let others = config.cluster.iter().flat_map(|cluster| cluster.nodes.values());
    config.data_nodes.values().chain(others).cloned()
}
