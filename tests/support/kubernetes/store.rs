//! A use under test, as an application sees it that has nothing but its binding Secret.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::{Client, Resource, ResourceExt as _};
use redis::aio::MultiplexedConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult,
};
use redoubt::api::data_layer::DataLayer;
use redoubt::api::session_store::SessionStore;
use redoubt::api::use_status::UseStatus;
use redoubt::model::LayerIdentity;
use redoubt::report::draft::PROVEN;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::layer::Layer;
use crate::polling::{eventually, eventually_or};
use crate::test_namespace::{SOON, TestNamespace};

/// Between two calls of a caller, as users make them: callers that go flat out take from two processors what the servers, and those
/// of the claim beside, need to answer in time.
pub const PACE: Duration = Duration::from_millis(20);

/// The custom resource of a use.
pub trait UseObject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status = UseStatus>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> UseObject for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus<Status = UseStatus>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

/// A use of a test, a session store where nothing else is said.
pub struct Store<K = SessionStore> {
    pub client: Client,
    namespace: String,
    pub name: String,
    kind: PhantomData<K>,
}

impl Store {
    /// Creates a session store in the namespace of a namespace.
    pub async fn create(namespace: &TestNamespace, name: &str, spec: Value) -> Self {
        Self::make(namespace, name, spec).await
    }
}

impl<K: UseObject> Store<K> {
    /// Creates it in the namespace of a namespace.
    pub async fn make(namespace: &TestNamespace, name: &str, spec: Value) -> Self {
        let body = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
        });
        let (client, namespace) = (namespace.client.clone(), namespace.name.clone());
        let store = Self { client, namespace, name: name.to_owned(), kind: PhantomData };
        store.api().create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        store
    }

    pub fn api(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Status, reason and message of a condition of its newest generation.
    pub async fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let object = self.api().get(&self.name).await.unwrap();
        let condition = object.status()?.conditions.iter().find(|condition| condition.type_ == kind)?.clone();
        (condition.observed_generation == object.meta().generation).then_some((
            condition.status,
            condition.reason,
            condition.message,
        ))
    }

    /// Its status.
    pub async fn status(&self) -> Option<UseStatus> {
        self.api().get(&self.name).await.unwrap().status().cloned()
    }

    /// Waits until it is Ready, and nothing of it is still on its way.
    pub async fn ready(&self) -> Duration {
        let took = eventually_or("the store is Ready", SOON, async || {
            self.condition("Ready").await.is_some_and(|(status, reason, _)| status == "True" && reason == PROVEN)
        })
        .await;
        let Some(took) = took else {
            let object = self.api().get(&self.name).await.unwrap();
            let status = object.status();
            panic!("not Ready within {SOON:?}\n{}", serde_json::to_string_pretty(&status).unwrap());
        };
        took
    }

    /// Waits until it is not accepted for this reason, with a message that has these words.
    pub async fn refused(&self, reason: &str, words: &str) {
        eventually(&format!("the store is refused: {reason}"), SOON, async || {
            self.condition("Accepted")
                .await
                .is_some_and(|(status, found, message)| status == "False" && found == reason && message.contains(words))
        })
        .await;
    }

    /// Merges into its specification.
    pub async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api().patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Its binding Secret, if there is one.
    pub async fn binding(&self) -> Option<BTreeMap<String, String>> {
        let status = self.status().await?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(&status.binding?.name).await.unwrap()?;
        let text = |bytes: k8s_openapi::ByteString| String::from_utf8(bytes.0).unwrap();
        Some(secret.data.unwrap_or_default().into_iter().map(|(field, value)| (field, text(value))).collect())
    }

    /// The layer that holds it.
    pub async fn layer(&self) -> Layer {
        let (namespace, name) = {
            let layer = self.status().await.unwrap().layer.unwrap();
            (layer.namespace, layer.name)
        };
        let layers: Api<DataLayer> = Api::namespaced(self.client.clone(), &namespace);
        let uid = layers.get(&name).await.unwrap().uid().unwrap();
        Layer { client: self.client.clone(), identity: LayerIdentity { uid, namespace, name } }
    }

    /// A connection to the primary, as a Sentinel-aware stock client makes it of the binding.
    pub async fn connect(&self) -> Option<MultiplexedConnection> {
        connect(&self.client, &self.binding().await?).await
    }

    /// A client of the store, where the claim is about something else than how soon one gets in.
    pub async fn connected(&self) -> MultiplexedConnection {
        let mut connection = None;
        eventually("a client is connected", SOON, async || {
            connection = self.connect().await;
            connection.is_some()
        })
        .await;
        connection.unwrap()
    }
}

/// Connects with what a binding says. This machine has no cluster DNS: the Services' names are looked up in the API.
pub async fn connect(client: &Client, binding: &BTreeMap<String, String>) -> Option<MultiplexedConnection> {
    let login = |user: &str, password: &str| {
        RedisConnectionInfo::default().set_username(&binding[user]).set_password(&binding[password])
    };
    let mut seeds: Vec<ConnectionInfo> = Vec::new();
    for seed in binding["sentinels"].split(',') {
        let (host, port) = seed.split_once(':').unwrap();
        // With the cluster's domain, where the operator knows it.
        let (service, namespace) = host.split_once(".svc").unwrap().0.split_once('.').unwrap();
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let address = services.get(service).await.ok()?.spec?.cluster_ip?;
        // The Service of all Sentinels may be headless.
        if address == "None" {
            continue;
        }
        let address = ConnectionAddr::Tcp(address, port.parse().unwrap());
        seeds.push(
            address.into_connection_info().unwrap().set_redis_settings(login("sentinel-username", "sentinel-password")),
        );
    }
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login("username", "password"));
    let mut sentinel = Sentinel::build(seeds).unwrap();
    let asking = sentinel.async_master_for(&binding["master-name"], Some(&node));
    let found = tokio::time::timeout(Duration::from_secs(1), asking).await.ok()?.ok()?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(3)));
    found.get_multiplexed_async_connection_with_config(&config).await.ok()
}

/// A call of a function with one key.
pub fn call(function: &str, key: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd("FCALL");
    command.arg(function).arg(1).arg(key).arg(arguments);
    command
}

pub async fn run<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, command: Cmd) -> RedisResult<T> {
    command.query_async(connection).await
}
