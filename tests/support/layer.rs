//! A layer of agents with their engines, each on a loopback address of its own with the ports of a pod.

mod address;
mod health;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use redoubt::model::audit::{AuditReport, DeclaredPrefixes};
use redoubt::model::lineage::LineageAnswer;
use redoubt::model::node_config::{
    ClusterConfig, NODE_CONFIG_FORMAT, NodeConfig, PREFIXES_FILE, REDIS_PORT, SENTINEL_PORT,
};
use redoubt::model::{Address, LayerIdentity, Mode, NodeId, NodeKind};
use redoubt::redis::users::{self, PasswordDigests};
use redoubt::redis::{Connection, Endpoint, Secret};
use sha2::{Digest as _, Sha256};

use super::engine_process::{Engine, signal};
use super::eventually;

/// How long a small layer may take to come into sync where a test does not measure it.
pub const SOON: Duration = Duration::from_secs(40);

const PASSWORDS: [(&str, &str); 5] =
    [("operator", "p-o"), ("agent", "p-a"), ("replication", "p-r"), ("sentinel", "p-s"), ("application", "p-app")];

static NEXT_LAYER: AtomicU8 = AtomicU8::new(1);

/// What a test may choose.
pub struct Options {
    /// Data nodes; in mode `Cluster` those of each shard.
    pub data_nodes: u16,
    /// Shards of mode `Cluster`; 0: the mode is `Sentinel`.
    pub shards: u16,
    /// Sentinels.
    pub sentinels: u16,
    /// Detection time, milliseconds.
    pub detection: u64,
    /// `min-replicas-to-write`.
    pub min_replicas: u16,
    /// Whether data is meant to survive a restart.
    pub keeps_data: bool,
    /// Further settings of the data nodes.
    pub settings: &'static [(&'static str, &'static str)],
    /// The engine; `None`: that of the search path.
    pub engine: Option<Engine>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_nodes: 3,
            shards: 0,
            sentinels: 3,
            detection: 2_000,
            min_replicas: 1,
            keeps_data: true,
            settings: &[],
            engine: None,
        }
    }
}

/// What a server confirms is in its file then. With `everysec` a disk that is busy keeps it from there for up to two seconds, also where
/// only the process is killed.
pub const WRITTEN_AT_ONCE: &[(&str, &str)] = &[("appendfsync", "always")];

/// One node: its folder, and its agent while that runs.
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Its address.
    pub address: Address,
    /// Where it listens.
    bind: Address,
    folder: PathBuf,
    agent: Option<Child>,
}

/// A running layer. Ends all its processes when dropped.
pub struct Layer {
    /// Data nodes and Sentinels.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Name of the primary in the Sentinels.
    pub master_name: String,
    root: PathBuf,
    /// Where agents look for their engine first.
    engine: Option<PathBuf>,
}

impl Layer {
    /// Starts all agents, from empty folders, at once.
    pub fn start(options: &Options) -> Self {
        let mut layer = Self::prepare(options);
        let ids: Vec<NodeId> = layer.nodes.keys().copied().collect();
        for id in ids {
            layer.start_node(id);
        }
        layer
    }

    /// Starts it and waits until every replica is in sync.
    pub async fn in_sync(options: &Options) -> Self {
        let layer = Self::start(options);
        layer.wait_until_in_sync().await;
        layer
    }

    /// Makes the folders of all nodes, and starts none.
    pub fn prepare(options: &Options) -> Self {
        let number = NEXT_LAYER.fetch_add(1, Ordering::Relaxed);
        // Test processes of one machine differ in their ids, layers of one process in their numbers.
        let network = format!("127.{}.{number}", 2 + std::process::id() % 250);
        let root = std::env::temp_dir().join(format!("redoubt-test-{}-{number}", std::process::id()));
        let identity =
            LayerIdentity { uid: format!("uid{number}-0000"), namespace: "test".to_owned(), name: "web".to_owned() };
        let addresses = |count: u16, from: u16| -> BTreeMap<u16, Address> {
            (0..count).map(|ordinal| (ordinal, Address(format!("{network}.{}", from + ordinal)))).collect()
        };
        let in_cluster = options.shards > 0;
        let ordinals =
            (0..options.shards.max(1)).flat_map(|shard| (0..options.data_nodes).map(move |at| 10 * shard + at));
        let data_nodes: BTreeMap<u16, Address> =
            ordinals.map(|ordinal| (ordinal, Address(format!("{network}.{}", 10 + ordinal)))).collect();
        let sentinels = addresses(if in_cluster { 0 } else { options.sentinels }, 110);
        let ids: Vec<NodeId> = data_nodes
            .keys()
            .copied()
            .map(NodeId::data)
            .chain(sentinels.keys().copied().map(NodeId::sentinel))
            .collect();
        let master_name = identity.master_name();
        let nodes = ids
            .into_iter()
            .map(|id| {
                let is_of_shard = |ordinal: &u16| !in_cluster || ordinal / 10 == id.ordinal / 10;
                let config = NodeConfig {
                    format: NODE_CONFIG_FORMAT,
                    layer: identity.clone(),
                    node: id,
                    mode: if in_cluster { Mode::Cluster } else { Mode::Sentinel },
                    initialised: false,
                    keeps_data: options.keeps_data,
                    accept_loss: None,
                    drop_aside: BTreeSet::new(),
                    caches: BTreeMap::new(),
                    functions: BTreeSet::new(),
                    data_nodes: data_nodes.clone().into_iter().filter(|(ordinal, _)| is_of_shard(ordinal)).collect(),
                    sentinels: sentinels.clone(),
                    master_name: master_name.clone(),
                    quorum: options.sentinels / 2 + 1,
                    detection_milliseconds: options.detection,
                    failover_timeout_milliseconds: 10_000.max(3 * options.detection),
                    grace_period_seconds: 20,
                    cluster: in_cluster.then(|| ClusterConfig { nodes: data_nodes.clone() }),
                    settings: settings(options),
                };
                let address = config.own_address().unwrap().clone();
                let folder = root.join(id.to_string());
                write_folder(&folder, &config);
                (id, Node { id, bind: address.clone(), address, folder, agent: None })
            })
            .collect();
        let engine = options.engine.as_ref().and_then(|engine| engine.program.parent()).map(Path::to_owned);
        Self { nodes, master_name, root, engine }
    }

    /// Starts one node's agent, as the kubelet would start its container.
    pub fn start_node(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let log = fs::File::options().create(true).append(true).open(node.folder.join("log")).unwrap();
        let folder = |name: &str| node.folder.join(name).display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = self.engine.iter().map(|folder| folder.display().to_string()).chain([path]).collect::<Vec<_>>();
        let child = Command::new(env!("CARGO_BIN_EXE_redoubt"))
            .env("PATH", path.join(":"))
            .args(["agent", "--data", &folder("data"), "--config", &folder("config.json")])
            .args(["--secrets", &folder("secrets"), "--run", &folder("run"), "--bind", &node.bind.0])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        node.agent = Some(child);
    }

    /// Kills a node's engine and leaves its agent alone.
    pub fn kill_engine(&self, id: NodeId) {
        for pid in self.engine_pids(id) {
            signal(pid, "KILL");
        }
    }

    /// Stops a node's engine in its tracks, or lets it go on: it misses what happens meanwhile.
    pub fn freeze_engine(&self, id: NodeId, frozen: bool) {
        for pid in self.engine_pids(id) {
            signal(pid, if frozen { "STOP" } else { "CONT" });
        }
    }

    /// Stops a node's agent in its tracks, or lets it go on, and leaves its engine alone.
    pub fn freeze_agent(&self, id: NodeId, frozen: bool) {
        signal(self.nodes[&id].agent.as_ref().unwrap().id(), if frozen { "STOP" } else { "CONT" });
    }

    /// Kills agent and engine, as when the container's or the machine's end is sudden.
    pub fn kill_node(&mut self, id: NodeId) {
        let engines = self.engine_pids(id);
        let mut agent = self.nodes.get_mut(&id).unwrap().agent.take().unwrap();
        agent.kill().unwrap();
        for pid in engines {
            signal(pid, "KILL");
            while Path::new(&format!("/proc/{pid}/exe")).exists() && fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
                std::thread::yield_now();
            }
        }
        agent.wait().unwrap();
    }

    /// Tells a node to stop, as Kubernetes does, and waits until it has.
    pub async fn terminate_node(&mut self, id: NodeId) {
        let mut agent = self.nodes.get_mut(&id).unwrap().agent.take().unwrap();
        signal(agent.id(), "TERM");
        eventually("the agent ends", SOON, async || agent.try_wait().unwrap().is_some()).await;
    }

    /// Tells all nodes to stop at once, and starts each again when it has ended, as when all pods are deleted.
    pub async fn restart_all(&mut self) {
        self.stop_all_and(|_| Duration::ZERO, Self::start_node).await;
    }

    /// Tells all nodes to stop, each when its time has come, and waits until they have.
    pub async fn stop_all(&mut self, after: impl Fn(NodeId) -> Duration) {
        self.stop_all_and(after, |_, _| {}).await;
    }

    async fn stop_all_and(&mut self, after: impl Fn(NodeId) -> Duration, then: impl Fn(&mut Self, NodeId)) {
        let mut ending: BTreeMap<NodeId, Child> = BTreeMap::new();
        let mut told: BTreeSet<NodeId> = BTreeSet::new();
        for (id, node) in &mut self.nodes {
            ending.extend(node.agent.take().map(|agent| (*id, agent)));
        }
        let began = std::time::Instant::now();
        while !ending.is_empty() {
            for (id, agent) in ending.iter().filter(|(id, _)| after(**id) <= began.elapsed()) {
                if told.insert(*id) {
                    signal(agent.id(), "TERM");
                }
            }
            assert!(began.elapsed() < SOON, "{:?} do not end", ending.keys());
            let ended: Vec<NodeId> = ending
                .iter_mut()
                .filter_map(|(id, agent)| agent.try_wait().unwrap().is_some().then_some(*id))
                .collect();
            for id in ended {
                println!("{id} ended after {:.2?}", began.elapsed());
                ending.remove(&id);
                then(self, id);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Empties a stopped node's volume.
    pub fn wipe(&self, id: NodeId) {
        let data = self.nodes[&id].folder.join("data");
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
    }

    /// A node's volume.
    pub fn data(&self, id: NodeId) -> PathBuf {
        self.nodes[&id].folder.join("data")
    }

    /// What a node's agent says to the readiness probe: status line, headers and words.
    pub async fn readiness(&self, id: NodeId) -> Option<String> {
        self.probe(id, "ready").await
    }

    /// What a node's agent says to one of the probes: `started`, `ready` or `live`.
    pub async fn probe(&self, id: NodeId, which: &str) -> Option<String> {
        self.get(id, &format!("health/{which}")).await
    }

    /// A node's metrics.
    pub async fn metrics(&self, id: NodeId) -> Option<String> {
        self.get(id, "metrics").await
    }

    /// What a node's agent answers for a path: status line, headers and body.
    pub async fn get(&self, id: NodeId, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = (self.nodes[&id].address.0.as_str(), redoubt::model::node_config::AGENT_PORT);
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET /{path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// Records in every document that the layer was Ready, as the operator does.
    pub fn mark_initialised(&self) {
        self.edit_documents(|config| config.initialised = true);
    }

    /// Changes every node's document. Whole or not at all: its agent reads it at any time.
    pub fn edit_documents(&self, edit: impl Fn(&mut NodeConfig)) {
        for node in self.nodes.values() {
            let path = node.folder.join("config.json");
            let mut config: NodeConfig = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            edit(&mut config);
            fs::write(path.with_extension("new"), serde_json::to_string(&config).unwrap()).unwrap();
            fs::rename(path.with_extension("new"), &path).unwrap();
        }
    }

    /// A file of a node's Secret, as it is.
    pub fn secret(&self, id: NodeId, file: &str) -> String {
        fs::read_to_string(self.nodes[&id].folder.join("secrets").join(file)).unwrap()
    }

    /// Replaces a file of a node's Secret. Whole or not at all, as the kubelet does.
    pub fn write_secret(&self, id: NodeId, file: &str, text: &str) {
        let path = self.nodes[&id].folder.join("secrets").join(file);
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
    }

    /// Tells every data node's agent of the layer's uses, as the operator does. Whole or not at all.
    pub fn declare(&self, declared: &DeclaredPrefixes) {
        for node in self.nodes.values().filter(|node| node.id.kind == NodeKind::Data) {
            self.write_secret(node.id, PREFIXES_FILE, &serde_json::to_string(declared).unwrap());
        }
    }

    /// What a node's agent found in the keys last.
    pub async fn audit(&self, id: NodeId) -> Option<AuditReport> {
        redoubt::answers::fetch_audit(&self.nodes[&id].address.0).await
    }

    /// Processes under a node's agent.
    pub fn engine_pids(&self, id: NodeId) -> Vec<u32> {
        let Some(agent) = &self.nodes[&id].agent else { return vec![] };
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
    }

    /// Ordinals of the data nodes.
    pub fn data_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|id| id.kind == NodeKind::Data).collect()
    }

    /// A server or Sentinel, as the application's user.
    pub fn endpoint(&self, id: NodeId) -> Endpoint {
        let port = if id.kind == NodeKind::Data { REDIS_PORT } else { SENTINEL_PORT };
        endpoint(&self.nodes[&id].address, port, users::APPLICATION, "p-app")
    }

    /// All Sentinels, as the application's user.
    pub fn sentinel_endpoints(&self) -> Vec<Endpoint> {
        let ids = self.nodes.keys().filter(|id| id.kind == NodeKind::Sentinel);
        ids.map(|id| self.endpoint(*id)).collect()
    }

    /// A node, as the operator's user.
    pub fn operator_on(&self, id: NodeId) -> Endpoint {
        let port = if id.kind == NodeKind::Data { REDIS_PORT } else { SENTINEL_PORT };
        endpoint(&self.nodes[&id].address, port, users::OPERATOR, "p-o")
    }

    /// A node, as the agents' user.
    pub fn agent_on(&self, id: NodeId) -> Endpoint {
        Endpoint { username: users::AGENT.to_owned(), password: Secret::new("p-a"), ..self.operator_on(id) }
    }

    /// Ordinals of the Sentinels.
    pub fn sentinel_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|id| id.kind == NodeKind::Sentinel).collect()
    }

    /// What a node's agent tells its peers.
    pub async fn lineage(&self, id: NodeId) -> Option<LineageAnswer> {
        let node = &self.nodes[&id];
        let text = fs::read_to_string(node.folder.join("config.json")).ok()?;
        let config: NodeConfig = serde_json::from_str(&text).ok()?;
        redoubt::agent::peers::ask_agent(&config, id.ordinal, &node.address).await
    }

    /// Number of keys of a data node.
    pub async fn keys(&self, id: NodeId) -> Option<u64> {
        Connection::open(&self.endpoint(id)).await.ok()?.query(&redis::cmd("DBSIZE")).await.ok()
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.nodes[&id].agent.is_some() {
                self.kill_node(id);
            }
        }
        // A failed test leaves its logs, as does REDOUBT_KEEP_LOGS.
        if !std::thread::panicking() && std::env::var_os("REDOUBT_KEEP_LOGS").is_none() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn endpoint(address: &Address, port: u16, username: &str, password: &str) -> Endpoint {
    let (address, username) = (address.0.clone(), username.to_owned());
    Endpoint { address, port, username, password: Secret::new(password), other_password: None }
}

fn settings(options: &Options) -> BTreeMap<String, String> {
    let min_replicas = options.min_replicas.to_string();
    [
        ("appendonly", if options.keeps_data { "yes" } else { "no" }),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("min-replicas-to-write", min_replicas.as_str()),
        ("min-replicas-max-lag", "3"),
        ("repl-diskless-sync-delay", "0"),
        ("repl-ping-replica-period", "1"),
        ("repl-timeout", "10"),
    ]
    .into_iter()
    .chain(options.settings.iter().copied())
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn write_folder(folder: &Path, config: &NodeConfig) {
    for name in ["data", "secrets", "run"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("config.json"), serde_json::to_string(config).unwrap()).unwrap();
    let digest = |password: &str| hex::encode(Sha256::digest(password));
    let of = |name: &str| digest(PASSWORDS.iter().find(|(user, _)| *user == name).unwrap().1);
    let digests = PasswordDigests {
        operator: of("operator"),
        agent: of("agent"),
        replication: of("replication"),
        sentinel: of("sentinel"),
        application: Some(of("application")),
        administrator: None,
    };
    let users = match config.node.kind {
        NodeKind::Data => {
            let mut users = users::data_users(&digests);
            if config.cluster.is_some() {
                users::serve_cluster(&mut users);
            }
            users
        }
        NodeKind::Sentinel => users::sentinel_users(&digests),
    };
    fs::write(folder.join("secrets/users.acl"), users::acl_file(&users)).unwrap();
    for (name, password) in PASSWORDS {
        fs::write(folder.join(format!("secrets/{name}-password")), password).unwrap();
    }
}
