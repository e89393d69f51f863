//! One layer of a claim: what its servers say of themselves, and what can be done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher::watch_object};
use kube::{Client, ResourceExt as _};
use redoubt::api::data_layer::DataLayer;
use redoubt::api::names;
use redoubt::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{LayerIdentity, NodeId, NodeKind, Role};
use redoubt::redis::{Connection, Endpoint, sentinel, server, users};
use redoubt::report::draft::PROVEN;
use serde_json::{Value, json};

use crate::history::{Verdict, Write, Writers, check, keys_of};
use crate::place;
use crate::polling::{eventually, eventually_or};
use crate::test_namespace::{SOON, WRITERS};
use crate::witness::{Witness, slowness, widened};

fn condition_of(object: DataLayer, kind: &str) -> Option<(String, String, String)> {
    let condition = object.status?.conditions.into_iter().find(|condition| condition.type_ == kind)?;
    (condition.observed_generation == object.metadata.generation).then_some((
        condition.status,
        condition.reason,
        condition.message,
    ))
}

/// One layer.
pub struct Layer {
    /// The API server.
    pub client: Client,
    /// Who it is.
    pub identity: LayerIdentity,
}

impl Layer {
    /// Objects of one kind in the layer's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.identity.namespace)
    }

    /// The object as it is now.
    pub async fn object(&self) -> DataLayer {
        self.api().get(&self.identity.name).await.unwrap()
    }

    /// Status, reason and message of a condition that speaks of this generation.
    pub async fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        condition_of(self.object().await, kind)
    }

    /// Whether a condition holds for this generation.
    pub async fn is(&self, kind: &str) -> bool {
        self.condition(kind).await.is_some_and(|(status, _, _)| status == "True")
    }

    /// Waits until it is not `Degraded`, and prints what is wrong until then. It may be for a moment after it is proven: a busy machine
    /// leaves one question to a server without an answer.
    pub async fn nothing_is_wrong(&self) {
        let mut told = None;
        eventually("nothing is wrong", SOON, async || {
            let now = self.condition("Degraded").await;
            let is_over = now.as_ref().is_some_and(|(status, _, _)| status == "False");
            if !is_over && now != told {
                println!("  {}: {now:?}", self.identity.name);
                told = now;
            }
            is_over
        })
        .await;
    }

    /// Waits until it is proven for this generation.
    pub async fn ready(&self) -> Duration {
        let began = Instant::now();
        if tokio::time::timeout(SOON, self.is_reported_ready()).await.is_err() {
            let status = serde_json::to_string_pretty(&self.object().await.status).unwrap();
            let of = |pod: &Pod| serde_json::to_string(&pod.status).unwrap();
            let pods: BTreeMap<String, String> =
                self.pods().await.iter().map(|(name, pod)| (name.clone(), of(pod))).collect();
            println!("{status}\n{pods:#?}");
            // Whether the operator still looks.
            let passes = place::passes(&self.identity.namespace);
            tokio::time::sleep(Duration::from_secs(3)).await;
            let later = place::passes(&self.identity.namespace);
            panic!("not Ready within {SOON:?}: {passes} -> {later}\n{}", self.what_is_missing().await);
        }
        began.elapsed()
    }

    /// Conditions that do not hold, each node's state, and what those logged last that are not in sync.
    async fn what_is_missing(&self) -> String {
        const LINES: usize = 2;
        let status = self.object().await.status.unwrap_or_default();
        let open = status.conditions.iter().filter(|condition| condition.status != "True");
        let open = open.map(|condition| format!("{} {}: {}", condition.type_, condition.reason, condition.message));
        let nodes = status.nodes.iter().flat_map(|node| {
            let state = format!("{} {:?} {:?}", node.name, node.role, node.state);
            let is_in_sync = node.state.as_deref() == Some("InSync");
            let pod = format!("{}-0", node.name);
            let log = if is_in_sync { String::new() } else { place::log(&self.identity.namespace, &pod) };
            let first = log.lines().count().saturating_sub(LINES);
            let last: Vec<String> = log.lines().skip(first).map(str::to_owned).collect();
            std::iter::once(state).chain(last)
        });
        open.chain(nodes).collect::<Vec<_>>().join("\n")
    }

    /// Watches it instead of asking again and again: to read an object of so large a schema costs the API server so much that all that
    /// waited took a tenth of the processors.
    async fn is_reported_ready(&self) {
        let mut told = String::new();
        let mut objects = pin!(watch_object(self.api::<DataLayer>(), &self.identity.name).default_backoff());
        while let Some(event) = objects.next().await {
            let now = event.ok().flatten().and_then(|object| condition_of(object, "Ready"));
            // What it waits for is the first thing that one wants to know of a claim that fails.
            let words = now.as_ref().map(|(_, reason, message)| format!("{reason}: {message}")).unwrap_or_default();
            if words != told {
                println!("  {}: {words}", self.identity.name);
                told = words;
            }
            // `Ready` alone says that it serves: the reason says that nothing is left to do.
            if now.is_some_and(|(status, reason, _)| status == "True" && reason == PROVEN) {
                return;
            }
        }
    }

    /// Changes the specification by a merge patch.
    pub async fn change(&self, spec: Value) {
        let api: Api<DataLayer> = self.api();
        let patch = Patch::Merge(json!({"spec": spec}));
        api.patch(&self.identity.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Fields of the application's binding Secret.
    pub async fn binding(&self) -> BTreeMap<String, String> {
        let secret: Secret = self.api().get(&self.binding_name()).await.unwrap();
        let text = |bytes: k8s_openapi::ByteString| String::from_utf8(bytes.0).unwrap();
        secret.data.unwrap_or_default().into_iter().map(|(field, value)| (field, text(value))).collect()
    }

    /// Where each node is, by its Service, as the application's user; as the operator's where the layer is a use's own and has none.
    pub async fn endpoints(&self) -> BTreeMap<NodeId, Endpoint> {
        let secrets: Api<Secret> = self.api();
        let (user, password) = if secrets.get_opt(&self.binding_name()).await.unwrap().is_some() {
            (users::APPLICATION, redoubt::redis::Secret::new(&self.binding().await["password"]))
        } else {
            (users::OPERATOR, self.operator_password().await)
        };
        let selector =
            ListParams::default().labels(&format!("redoubt.dev/layer={},redoubt.dev/node", self.identity.name));
        let services: Api<Service> = self.api();
        let mut endpoints = BTreeMap::new();
        for service in services.list(&selector).await.unwrap() {
            let (kind, ordinal) = service.labels()["redoubt.dev/node"].rsplit_once('-').unwrap();
            let ordinal = ordinal.parse().unwrap();
            let (node, port) = match kind {
                "redis" => (NodeId::data(ordinal), REDIS_PORT),
                _ => (NodeId::sentinel(ordinal), SENTINEL_PORT),
            };
            let Some(address) = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()) else { continue };
            let (username, password) = (user.to_owned(), password.clone());
            endpoints.insert(node, Endpoint { address, port, username, password, other_password: None });
        }
        endpoints
    }

    /// The Sentinels.
    pub async fn sentinels(&self) -> Vec<Endpoint> {
        let all = self.endpoints().await;
        all.into_iter().filter(|(node, _)| node.kind == NodeKind::Sentinel).map(|(_, endpoint)| endpoint).collect()
    }

    /// The operator's user on a node: what only it may ask (`CONFIG GET`).
    pub async fn as_operator(&self, node: NodeId) -> Endpoint {
        let endpoint = self.endpoints().await.remove(&node).unwrap();
        Endpoint { username: users::OPERATOR.to_owned(), password: self.operator_password().await, ..endpoint }
    }

    async fn operator_password(&self) -> redoubt::redis::Secret {
        let secret: Secret = self.api().get(&format!("{}-redis-system", self.identity.name)).await.unwrap();
        redoubt::redis::Secret::new(String::from_utf8(secret.data.unwrap()["operator-password"].0.clone()).unwrap())
    }

    fn binding_name(&self) -> String {
        format!("{}-redis-app", self.identity.name)
    }

    /// The node that most Sentinels name and that says it is primary with every other data node online.
    pub async fn primary_in_sync(&self) -> Option<NodeId> {
        let endpoints = self.endpoints().await;
        let (primary, online) = primary(&endpoints, &self.identity.master_name()).await?;
        let data = endpoints.keys().filter(|node| node.kind == NodeKind::Data).count();
        (online + 1 == data).then_some(primary)
    }

    /// The node that most Sentinels name and that says it is primary, whatever the others do.
    pub async fn primary(&self) -> Option<NodeId> {
        let endpoints = self.endpoints().await;
        primary(&endpoints, &self.identity.master_name()).await.map(|(node, _)| node)
    }

    /// Waits until every data node is in sync; the primary as it was seen then. (A second look might find a pod that has just begun to
    /// stop.)
    pub async fn wait_until_in_sync(&self) -> NodeId {
        let mut primary = None;
        eventually("the layer is in sync", SOON, async || {
            primary = self.primary_in_sync().await;
            primary.is_some()
        })
        .await;
        primary.expect("the condition held")
    }

    /// Waits until a node's pod is another than `old` and ready.
    pub async fn is_replaced(&self, node: NodeId, old: &str) {
        eventually("the pod is a new one and ready", SOON, async || {
            let pods = self.pods().await;
            pods.get(&self.pod(node)).is_some_and(|pod| pod.metadata.uid.as_deref() != Some(old) && is_ready(pod))
        })
        .await;
    }

    /// The layer's pods by name.
    pub async fn pods(&self) -> BTreeMap<String, Pod> {
        let selector = ListParams::default().labels(&format!("redoubt.dev/layer={}", self.identity.name));
        let pods: Api<Pod> = self.api();
        pods.list(&selector).await.unwrap().into_iter().map(|pod| (pod.name_any(), pod)).collect()
    }

    /// UIDs of the layer's pods.
    pub async fn pod_uids(&self) -> BTreeSet<String> {
        self.pods().await.values().filter_map(kube::ResourceExt::uid).collect()
    }

    /// Name of a node's pod.
    pub fn pod(&self, node: NodeId) -> String {
        names::pod(&self.identity.name, node)
    }

    /// Name of a node in status: that of its StatefulSet.
    pub fn pod_owner(&self, node: NodeId) -> String {
        names::node(&self.identity.name, node)
    }

    /// Deletes a node's pod.
    pub async fn delete_pod(&self, node: NodeId) {
        let pods: Api<Pod> = self.api();
        pods.delete(&self.pod(node), &DeleteParams::default()).await.unwrap();
    }

    /// Kills a process of a node's pod with SIGKILL.
    pub fn kill(&self, node: NodeId, process: &str) {
        place::signal(&self.identity.namespace, &self.pod(node), "KILL", process);
    }

    /// Kills a node's engine with SIGKILL.
    pub async fn kill_engine(&self, node: NodeId) {
        let pod = self.pods().await.remove(&self.pod(node)).expect("the node has a pod");
        let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.image).unwrap_or_default();
        self.kill(node, if image.contains("valkey") { "valkey-server" } else { "redis-server" });
    }

    /// The server process that is primary now: it changes when another is promoted, and when the same one starts anew.
    pub async fn serving(&self) -> Option<String> {
        self.process_of(self.primary().await?).await
    }

    async fn process_of(&self, node: NodeId) -> Option<String> {
        let endpoint = self.endpoints().await.remove(&node)?;
        let connection = Connection::open(&endpoint).await.ok()?;
        server::info(&connection).await.ok()?.run_id().map(str::to_owned)
    }

    /// Waits until another process than `old` is primary; of which node. (Which one it is, is not promised: a server that is
    /// killed right after it was promoted has the newest data itself.)
    pub async fn has_a_new_primary(&self, old: Option<String>) -> NodeId {
        let mut served_by = None;
        eventually("another process is primary", SOON, async || {
            let Some(primary) = self.primary().await else { return false };
            let now = self.process_of(primary).await;
            served_by = Some(primary);
            now.is_some() && now != old
        })
        .await;
        served_by.expect("the condition held")
    }

    /// Sets a key on the primary; the value is the key.
    pub async fn set(&self, key: &str) -> bool {
        let Some(primary) = self.primary().await else { return false };
        let Some(endpoint) = self.endpoints().await.remove(&primary) else { return false };
        let Ok(connection) = Connection::open(&endpoint).await else { return false };
        connection.query::<()>(redis::cmd("SET").arg(key).arg(key)).await.is_ok()
    }

    /// Reads a key from the primary.
    pub async fn get(&self, key: &str) -> Option<String> {
        let primary = self.primary().await?;
        let endpoint = self.endpoints().await.remove(&primary)?;
        let connection = Connection::open(&endpoint).await.ok()?;
        connection.query(redis::cmd("GET").arg(key)).await.ok()
    }

    /// Puts `keys` small keys on the primary and its replicas: it takes a server longer to load many of them than the same bytes
    /// in few. A replica executes such batches a second and more behind its primary: what is written right after them is on no
    /// replica yet.
    pub async fn fill(&self, keys: u32) {
        const BATCH: u32 = 10_000;
        let primary = self.wait_until_in_sync().await;
        let connection = Connection::open(&self.endpoints().await[&primary]).await.unwrap();
        // A batch is work: on a machine that does much else it takes longer than an answer usually may.
        let connection = connection.with_response_timeout(SOON);
        for first in (0..keys).step_by(BATCH as usize) {
            let mut command = redis::cmd("MSET");
            for number in first..first + BATCH {
                command.arg(format!("filled:{number}")).arg(number);
            }
            // Replicas that fall behind for seconds let the primary take no more, on a machine that does much else.
            eventually("the primary takes the batch", SOON, async || {
                let taken = connection.query::<()>(&command).await;
                let is_refused = taken
                    .as_ref()
                    .is_err_and(|error| error.server_text().is_some_and(|text| text.contains("NOREPLICAS")));
                assert!(taken.is_ok() || is_refused, "{taken:?}");
                taken.is_ok()
            })
            .await;
        }
        let replicas =
            u16::try_from(self.endpoints().await.keys().filter(|node| node.kind == NodeKind::Data).count() - 1);
        let acknowledged = server::wait(&connection, replicas.unwrap(), SOON).await.unwrap();
        assert_eq!(acknowledged, u64::from(replicas.unwrap()), "every replica has what was filled");
    }

    /// Removes all keys: of what an earlier claim wrote the next would not see that it is lost.
    pub async fn empty(&self) {
        let primary = self.wait_until_in_sync().await;
        let connection = Connection::open(&self.endpoints().await[&primary]).await.unwrap();
        let mut cursor = 0;
        loop {
            let (next, keys): (u64, Vec<String>) =
                connection.query(redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1_000)).await.unwrap();
            if !keys.is_empty() {
                connection.query::<()>(redis::cmd("UNLINK").arg(keys)).await.unwrap();
            }
            cursor = next;
            if cursor == 0 {
                return;
            }
        }
    }

    /// Keeps writing while `disturb` happens and until the layer is in sync, then judges by what the primary holds.
    pub async fn under_load(&self, disturb: impl AsyncFnOnce(&Self, NodeId)) -> Verdict {
        self.history(disturb).await.0
    }

    /// [`Self::under_load`], with the history and its beginning.
    pub async fn history(&self, disturb: impl AsyncFnOnce(&Self, NodeId)) -> (Verdict, Vec<Write>, Instant) {
        let primary = self.wait_until_in_sync().await;
        let sentinels = self.sentinels().await;
        let witnesses = join_all(sentinels.iter().cloned().map(Witness::of_server)).await;
        let began = Instant::now();
        let writers = Writers::paced(WRITERS, &sentinels, &self.identity.master_name(), pause());
        eventually("writes arrive", SOON, async || writers.acknowledged() > 200).await;
        disturb(self, primary).await;
        self.wait_until_in_sync().await;
        let before = writers.acknowledged();
        eventually("writes arrive again", SOON, async || writers.acknowledged() > before + 200).await;
        let history = writers.finish().await;
        let primary = self.wait_until_in_sync().await;
        let mut verdict = check(&history, &keys_of(&self.endpoints().await[&primary]).await);
        let gap = began + verdict.gap_began;
        verdict.slowness = slowness(&witnesses, &(gap..gap + verdict.longest_gap));
        for lost in history.iter().filter(|write| verdict.lost.contains(&write.key)) {
            println!("lost: {lost:?}");
        }
        (verdict, history, began)
    }

    /// Digest of the built-in library, as a node's functions tell it.
    pub async fn functions(&self, node: NodeId) -> Option<String> {
        let connection = Connection::open(&self.endpoints().await.remove(&node)?).await.ok()?;
        connection.query(redis::cmd("FCALL_RO").arg("redoubt_digest").arg(0)).await.ok()
    }

    /// The functions of the primary are the built-in ones.
    pub async fn functions_are_there(&self) {
        let expected = Some(redoubt::dataplane::built_in_libraries()[0].digest.clone());
        assert_eq!(self.functions(self.wait_until_in_sync().await).await, expected);
    }

    /// How often each container was restarted, by pod.
    pub async fn restarts(&self) -> BTreeMap<String, i32> {
        let count = |pod: &Pod| {
            let all = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            all.map(|container| container.restart_count).sum()
        };
        self.pods().await.iter().map(|(name, pod)| (name.clone(), count(pod))).collect()
    }

    /// Waits until the Services have followed the primary, which was `served_by` just now: its own selects its pod, and that of
    /// the replicas does not.
    pub async fn services_follow(&self, served_by: NodeId, within: Duration) -> Duration {
        const FOLLOWED_WITHIN: Duration = Duration::from_secs(2);
        let (began, mut primary) = (Instant::now(), served_by);
        let witness = [Witness::of_api_server(self.client.clone(), &self.identity.namespace).await];
        // Asked anew only where they do not follow soon: to ask servers of which one is cut off takes half a second.
        while eventually_or("the Services follow", FOLLOWED_WITHIN, async || self.services_select(primary).await)
            .await
            .is_none()
        {
            let within = widened(within, slowness(&witness, &(began..Instant::now())));
            assert!(began.elapsed() < within, "not within {within:?}: the Services follow the primary");
            primary = self.primary().await.unwrap_or(primary);
        }
        began.elapsed()
    }

    async fn services_select(&self, primary: NodeId) -> bool {
        let (services, pods): (Api<Service>, Api<Pod>) = (self.api(), self.api());
        let selector = async |name: String| services.get(&name).await.ok()?.spec?.selector;
        let name = &self.identity.name;
        let Some(of_primary) = selector(names::primary_service(name)).await else { return false };
        let Some(of_replicas) = selector(names::replicas_service(name)).await else { return false };
        let labels: Vec<String> = of_replicas.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let reads = pods.list(&ListParams::default().labels(&labels.join(","))).await.unwrap();
        of_primary.get(names::LABEL_POD_NAME) == Some(&self.pod(primary))
            && !reads.iter().any(|pod| pod.name_any() == self.pod(primary))
    }
}

/// Whether Kubernetes says that a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|known| known.type_ == "Ready" && known.status == "True"))
}

async fn primary(endpoints: &BTreeMap<NodeId, Endpoint>, master_name: &str) -> Option<(NodeId, usize)> {
    let patience = Duration::from_millis(500);
    let mut votes: BTreeMap<String, usize> = BTreeMap::new();
    let sentinels: Vec<&Endpoint> =
        endpoints.iter().filter(|(node, _)| node.kind == NodeKind::Sentinel).map(|(_, endpoint)| endpoint).collect();
    for endpoint in &sentinels {
        let Ok(connection) = Connection::open_with(endpoint, patience, patience).await else { continue };
        if let Ok(Some((address, _))) = sentinel::primary_address(&connection, master_name).await {
            *votes.entry(address.0).or_default() += 1;
        }
    }
    let named = votes.into_iter().find(|(_, count)| *count > sentinels.len() / 2).map(|(address, _)| address);
    // In mode Standalone there are no Sentinels: the only node is it.
    let (node, endpoint) = endpoints.iter().find(|(node, endpoint)| {
        node.kind == NodeKind::Data && (sentinels.is_empty() || Some(&endpoint.address) == named.as_ref())
    })?;
    let connection = Connection::open_with(endpoint, patience, patience).await.ok()?;
    let info = server::info(&connection).await.ok()?;
    // One that has been sent the data and reads it is online too; it has acknowledged nothing yet.
    let online = info.replicas().iter().filter(|replica| replica.online && replica.offset.0 > 0).count();
    (info.role() == Some(Role::Primary)).then_some((*node, online))
}

/// Rest of a writer after each write. Writers at full speed take both processors from the three nodes whose behaviour they are to
/// show; with `REDOUBT_LOAD=full`, as `make bench` and `make soak` measure, they do.
fn pause() -> Duration {
    let is_full = std::env::var("REDOUBT_LOAD").is_ok_and(|load| load == "full");
    if is_full { Duration::ZERO } else { Duration::from_millis(1) }
}
