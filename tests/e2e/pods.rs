//! Real pods of a real layer, applied from what `build` makes, without an operator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use redoubt::api::data_layer::DataLayer;
use redoubt::build::secrets::Credentials;
use redoubt::build::{Built, Inputs, build};
use redoubt::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use redoubt::model::{Address, NodeId, NodeKind, Role};
use redoubt::redis::users::{self, PasswordDigests};
use redoubt::redis::{Connection, Endpoint, sentinel, server};
use redoubt::validate::{DataVolumes, ResolvedDefaults, ValidatedLayer, validate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest as _, Sha256};

const WITHIN: Duration = Duration::from_secs(90);

/// A layer without an operator, in a namespace of its own that enforces Pod Security `restricted`.
struct Layer {
    client: Client,
    namespace: String,
    validated: ValidatedLayer,
    addresses: BTreeMap<NodeId, Address>,
}

fn digest(password: &str) -> String {
    Sha256::digest(password).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) -> Duration {
    crate::polling::eventually(what, WITHIN, condition).await
}

impl Layer {
    async fn create(namespace: &str, engine: &str) -> Self {
        let client = crate::client().await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let space =
            json!({"metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(space).unwrap()).await.unwrap();
        let layers: Api<DataLayer> = Api::namespaced(client.clone(), namespace);
        let object = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": {"name": "web"},
            // Paused: where an operator runs, it leaves these to us.
            "spec": {"mode": "Sentinel", "paused": true, "cpu": "50m", "engine": {"image": engine, "pullPolicy": "Never"}},
        });
        let stored = layers.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let resolved = ResolvedDefaults {
            engine_image: engine.to_owned(),
            agent_image: "localhost/redoubt:dev".to_owned(),
            volumes: DataVolumes::Undecided,
            shares: None,
        };
        let validated = validate(&stored, &resolved).unwrap();
        let mut layer = Self { client, namespace: namespace.to_owned(), validated, addresses: BTreeMap::new() };
        layer.apply().await;
        layer
    }

    fn build(&self) -> Built {
        let digests = PasswordDigests {
            operator: digest("p-o"),
            agent: digest("p-a"),
            replication: digest("p-r"),
            sentinel: digest("p-s"),
            application: Some(digest("p-app")),
        };
        build(&Inputs {
            layer: &self.validated,
            addresses: &self.addresses,
            initialised: false,
            resolved_defaults: "{}",
            primary: Some(NodeId::data(0)),
            credentials: Credentials {
                operator: "p-o",
                agent: "p-a",
                replication: "p-r",
                sentinel: "p-s",
                application: "p-app",
                data_users: &users::acl_file(&users::data_users(&digests)),
                sentinel_users: &users::acl_file(&users::sentinel_users(&digests)),
            },
        })
    }

    /// Services first, for their addresses; then everything else at once.
    async fn apply(&mut self) {
        for (node, service) in self.build().node_services {
            let applied: Service = self.apply_one(&service).await;
            self.addresses.insert(node, Address(applied.spec.unwrap().cluster_ip.unwrap()));
        }
        let built = self.build();
        for secret in &built.secrets {
            let _: Secret = self.apply_one(secret).await;
        }
        for service in &built.services {
            let _: Service = self.apply_one(service).await;
        }
        for budget in &built.budgets {
            self.apply_one(budget).await;
        }
        for node in built.nodes.values() {
            let _: StatefulSet = self.apply_one(&node.workload).await;
        }
    }

    async fn apply_one<K>(&self, object: &K) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams::apply("redoubt-e2e").force();
        // Server-side apply wants the type in the object; the types know it.
        let mut body = serde_json::to_value(object).unwrap();
        body["apiVersion"] = json!(K::api_version(&()));
        body["kind"] = json!(K::kind(&()));
        api.patch(&object.name_any(), &parameters, &Patch::Apply(&body)).await.unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn endpoint(&self, node: NodeId, username: &str, password: &str) -> Endpoint {
        let port = if node.kind == NodeKind::Data { REDIS_PORT } else { SENTINEL_PORT };
        Endpoint {
            address: self.addresses[&node].0.clone(),
            port,
            username: username.to_owned(),
            password: redoubt::redis::Secret::new(password),
        }
    }

    fn of_kind(&self, kind: NodeKind) -> Vec<NodeId> {
        self.addresses.keys().copied().filter(|node| node.kind == kind).collect()
    }

    /// The node that every Sentinel names, and that says it is primary with all others in sync.
    async fn whole(&self) -> Option<NodeId> {
        let mut named = None;
        for node in self.of_kind(NodeKind::Sentinel) {
            let connection = Connection::open(&self.endpoint(node, users::APPLICATION, "p-app")).await.ok()?;
            let name = self.validated.identity.master_name();
            let (address, _) = sentinel::primary_address(&connection, &name).await.ok()??;
            if *named.get_or_insert_with(|| address.clone()) != address {
                return None;
            }
        }
        let primary =
            self.of_kind(NodeKind::Data).into_iter().find(|node| Some(&self.addresses[node]) == named.as_ref())?;
        let connection = Connection::open(&self.endpoint(primary, users::OPERATOR, "p-o")).await.ok()?;
        let info = server::info(&connection).await.ok()?;
        let online = info.replicas().iter().filter(|replica| replica.online).count();
        (info.role() == Some(Role::Primary) && online + 1 == self.of_kind(NodeKind::Data).len()).then_some(primary)
    }

    async fn set(&self, primary: NodeId, key: &str) -> bool {
        let Ok(connection) = Connection::open(&self.endpoint(primary, users::APPLICATION, "p-app")).await else {
            return false;
        };
        connection.query::<()>(redis::cmd("SET").arg(key).arg("kept")).await.is_ok()
    }

    async fn get(&self, node: NodeId, key: &str) -> Option<String> {
        let connection = Connection::open(&self.endpoint(node, users::APPLICATION, "p-app")).await.ok()?;
        connection.query(redis::cmd("GET").arg(key)).await.ok()
    }

    async fn delete(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
        eventually("the namespace is gone", async || namespaces.get_opt(&self.namespace).await.unwrap().is_none())
            .await;
    }
}

async fn forms_and_survives(namespace: &str, engine: &str) {
    let began = Instant::now();
    let layer = Layer::create(namespace, engine).await;
    eventually("the layer is whole", async || layer.whole().await.is_some()).await;
    println!("{engine}: whole {:?} after its namespace was asked for", began.elapsed());
    let primary = layer.whole().await.unwrap();
    eventually("it takes a write", async || layer.set(primary, "before").await).await;
    for round in 0..2 {
        let key = format!("round-{round}");
        eventually("it takes a write", async || {
            let Some(primary) = layer.whole().await else { return false };
            layer.set(primary, &key).await
        })
        .await;
        let old: Vec<String> = uids(&layer).await;
        layer.pods().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        let took = eventually("all pods are new and the layer is whole", async || {
            let now = uids(&layer).await;
            now.len() == old.len() && now.iter().all(|uid| !old.contains(uid)) && layer.whole().await.is_some()
        })
        .await;
        println!("{engine}: all pods deleted, round {round}: whole after {took:?}");
        let primary = layer.whole().await.unwrap();
        assert_eq!(layer.get(primary, "before").await.as_deref(), Some("kept"));
        assert_eq!(layer.get(primary, &key).await.as_deref(), Some("kept"));
    }
    layer.delete().await;
}

async fn uids(layer: &Layer) -> Vec<String> {
    let pods = layer.pods().list(&ListParams::default()).await.unwrap();
    pods.items.into_iter().filter_map(|pod| pod.uid()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_7_pods_form_a_layer_and_keep_its_data_when_all_are_deleted() {
    forms_and_survives("e2e-redis-7", "localhost/redis:7.0").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the same of another engine: make soak"]
async fn redis_8_pods_form_a_layer_and_keep_its_data_when_all_are_deleted() {
    forms_and_survives("e2e-redis-8", "localhost/redis:8.0").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the same of another engine: make soak"]
async fn valkey_8_pods_form_a_layer_and_keep_its_data_when_all_are_deleted() {
    forms_and_survives("e2e-valkey-8", "localhost/valkey:8.1").await;
}
