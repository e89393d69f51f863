//! Claims about the Secret that a policy keeps for a gateway's rate limit service, read as that service reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisResult,
};
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use serde_json::json;

use crate::layer::Layer;
use crate::plane::plane;
use crate::polling::eventually;
use crate::store::Store;
use crate::test_namespace::{SOON, TestNamespace};

/// A Secret that was deleted or edited is as it was within this.
const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// The Secret of a policy for a rate limit service.
pub async fn exported(namespace: &TestNamespace, policy: &str) -> Option<BTreeMap<String, String>> {
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let secret = secrets.get_opt(&format!("{policy}-limit-export")).await.unwrap()?;
    let text = |bytes: k8s_openapi::ByteString| String::from_utf8(bytes.0).unwrap();
    Some(secret.data.unwrap_or_default().into_iter().map(|(field, value)| (field, text(value))).collect())
}

/// Address of a Service by its name in the cluster's DNS, which this machine has not: it is looked up in the API.
async fn address_of(client: &kube::Client, host: &str) -> String {
    let (service, namespace) = host.split_once(".svc").unwrap().0.split_once('.').unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    services.get(service).await.unwrap().spec.unwrap().cluster_ip.unwrap()
}

/// A URL with the address of the Service in place of its name.
async fn reachable(client: &kube::Client, url: &str) -> String {
    let host = url.rsplit_once('@').unwrap().1.split_once(':').unwrap().0;
    url.replacen(host, &address_of(client, host).await, 1)
}

/// Connects with what the Secret says and nothing else, as the service does at its start.
async fn log_in(client: &kube::Client, secret: &BTreeMap<String, String>) -> RedisResult<MultiplexedConnection> {
    let info = if let Some(url) = secret.get("URL") {
        // Limitador.
        reachable(client, url).await.into_connection_info().unwrap()
    } else {
        // envoyproxy/ratelimit.
        let (user, password) = secret["REDIS_AUTH"].split_once(':').unwrap();
        let login = RedisConnectionInfo::default().set_username(user).set_password(password);
        let (host, port) = secret["REDIS_URL"].rsplit_once(':').unwrap();
        let address = ConnectionAddr::Tcp(address_of(client, host).await, port.parse().unwrap());
        address.into_connection_info().unwrap().set_redis_settings(login)
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(1)));
    let client = Client::open(info).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Whether a server takes the credentials; `None`: there was no answer, as on a machine that does much else.
async fn are_taken(client: &kube::Client, secret: &BTreeMap<String, String>) -> Option<bool> {
    match log_in(client, secret).await {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS") => {
            Some(false)
        }
        Err(error) => {
            println!("{error}");
            None
        }
    }
}

/// Counts as the service does, and answers the count; `None`: it could not.
async fn count(connection: &mut MultiplexedConnection, key: &str, scripts: bool) -> Option<i64> {
    if scripts {
        let script =
            "local count = redis.call('incrby', KEYS[1], ARGV[1]) redis.call('expire', KEYS[1], 600) return count";
        return redis::cmd("EVAL").arg(script).arg(1).arg(key).arg(1).query_async(connection).await.ok();
    }
    let mut counts = redis::pipe();
    counts.cmd("INCRBY").arg(key).arg(1).cmd("EXPIRE").arg(key).arg(600).ignore();
    counts.query_async::<Vec<i64>>(connection).await.ok().map(|counted| counted[0])
}

/// A policy with a Secret for a service.
struct Served {
    policy: Store<RateLimitPolicy>,
    /// The key that the service counts at.
    key: &'static str,
    /// Whether it counts by scripts.
    scripts: bool,
}

impl Served {
    async fn secret(&self, namespace: &TestNamespace) -> Option<BTreeMap<String, String>> {
        exported(namespace, &self.policy.name).await
    }

    /// The service starts, and counts at the primary of the layer.
    async fn counts_at_the_primary(&self, namespace: &TestNamespace, layer: &Layer) {
        eventually(&format!("the service of {} counts at the primary", self.policy.name), SOON, async || {
            let Some(secret) = self.secret(namespace).await else { return false };
            let Ok(mut connection) = log_in(&namespace.client, &secret).await else { return false };
            let counted = count(&mut connection, self.key, self.scripts).await;
            counted.is_some() && layer.get(self.key).await == counted.map(|counted| counted.to_string())
        })
        .await;
    }
}

/// The Secrets for both services lead to the primary, whichever node that is and whatever the credentials are.
#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_a_rate_limit_service_leads_to_the_primary_through_failovers_and_a_rotation() {
    let namespace = TestNamespace::create("nl-limits-gateways").await;
    let layer = namespace.layer("shared", json!({"memory": {"evictionPolicy": "volatile-ttl"}})).await;
    let (place, limit) = (json!({"name": "shared"}), json!([{"name": "unused", "quota": 1, "window": "1s"}]));
    let envoy = json!({"layer": place, "limits": limit, "export": {"program": "EnvoyRateLimit"},
        "access": {"rotationGrace": "10s"}});
    let limitador = json!({"layer": place, "limits": limit, "export": {"program": "Limitador"}, "keyPrefix": "namespace:",
        "access": {"rotationGrace": "10s", "scripts": true}});
    let all = [
        Served {
            policy: Store::make(&namespace, "edge", envoy).await,
            key: "edge:domain_remote_address_10.0.0.1_1700000000",
            scripts: false,
        },
        Served {
            policy: Store::make(&namespace, "limitador", limitador).await,
            key: "namespace:{shop},counter:{\"user\":\"ada\"}",
            scripts: true,
        },
    ];
    for served in &all {
        served.policy.ready().await;
        served.counts_at_the_primary(&namespace, &layer).await;
    }
    let mut shown = Vec::new();
    for served in &all {
        shown.push(served.secret(&namespace).await.unwrap());
    }

    // The primary's engine is killed; then its pod goes and does not come back before another node has taken over.
    let (primary, process) = (layer.wait_until_in_sync().await, layer.serving().await);
    layer.kill_engine(primary).await;
    layer.has_a_new_primary(process).await;
    for served in &all {
        served.counts_at_the_primary(&namespace, &layer).await;
    }
    let (primary, process) = (layer.wait_until_in_sync().await, layer.serving().await);
    plane().kubelet.hold(&namespace.name, &layer.pod(primary));
    layer.delete_pod(primary).await;
    assert_ne!(layer.has_a_new_primary(process).await, primary);
    for (served, shown) in all.iter().zip(&shown) {
        served.counts_at_the_primary(&namespace, &layer).await;
        assert!(served.secret(&namespace).await.as_ref() == Some(shown), "no service has to read it again");
    }
    plane().kubelet.release(&namespace.name, &layer.pod(primary));
    layer.wait_until_in_sync().await;

    for (served, old) in all.iter().zip(&shown) {
        served.policy.ready().await;
        served.policy.change(json!({"access": {"rotation": 1}})).await;
        rotates(&namespace, served, old).await;
        served.counts_at_the_primary(&namespace, &layer).await;
    }
    for served in &all {
        is_mended(&namespace, served).await;
        served.counts_at_the_primary(&namespace, &layer).await;
    }
    namespace.delete().await;
}

/// Follows a rotation: at each moment the Secret shows credentials that are taken, and the old ones end after it has shown the new.
async fn rotates(namespace: &TestNamespace, served: &Served, old: &BTreeMap<String, String>) {
    let (mut before, mut both) = (0, 0);
    eventually("the old credentials end", SOON, async || {
        let secret = served.secret(namespace).await.unwrap();
        let Some(is_taken) = are_taken(&namespace.client, &secret).await else { return false };
        assert!(is_taken, "what the Secret shows is refused");
        let Some(is_old_taken) = are_taken(&namespace.client, old).await else { return false };
        if secret == *old {
            before += 1;
            assert!(is_old_taken, "the old ones ended before the Secret showed others");
        } else if is_old_taken {
            both += 1;
        }
        !is_old_taken
    })
    .await;
    println!("{}: {before} looks at the old, {both} at both", served.policy.name);
    assert!(both > 0, "the service had no time to read the new ones");
}

/// A Secret that is deleted or edited is as it was, soon.
async fn is_mended(namespace: &TestNamespace, served: &Served) {
    let (name, whole) = (format!("{}-limit-export", served.policy.name), served.secret(namespace).await.unwrap());
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let uid = secrets.get(&name).await.unwrap().metadata.uid;
    secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    let took = eventually("a deleted Secret is back", MENDED_WITHIN, async || {
        let found = secrets.get_opt(&name).await.unwrap();
        found.is_some_and(|secret| secret.metadata.uid != uid)
            && served.secret(namespace).await.as_ref() == Some(&whole)
    })
    .await;
    println!("{name}: deleted, back after {took:?}");
    let edited: BTreeMap<&str, &str> = whole.keys().map(|field| (field.as_str(), "elsewhere")).collect();
    let edit = Patch::Merge(json!({"stringData": edited}));
    secrets.patch(&name, &PatchParams::default(), &edit).await.unwrap();
    let took = eventually("an edited Secret is as it was", MENDED_WITHIN, async || {
        served.secret(namespace).await.as_ref() == Some(&whole)
    })
    .await;
    println!("{name}: edited, as it was after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_a_rate_limit_service_follows_the_binding_and_goes_with_its_declaration() {
    let namespace = TestNamespace::create("nl-limits-export").await;
    let limit = json!([{"name": "second", "quota": 10, "window": "1s"}]);
    let spec = json!({"limits": limit, "export": {"program": "EnvoyRateLimit"}, "access": {"rotationGrace": "0s"}});
    let policy: Store<RateLimitPolicy> = Store::make(&namespace, "api", spec).await;
    policy.ready().await;
    let shows_the_binding = async || {
        let (Some(binding), Some(secret)) = (policy.binding().await, exported(&namespace, "api").await) else {
            return false;
        };
        secret["REDIS_AUTH"] == format!("{}:{}", binding["username"], binding["password"])
            && secret["REDIS_URL"] == format!("{}:{}", binding["host"], binding["port"])
            && secret["CACHE_KEY_PREFIX"] == "api:"
    };
    assert!(
        shows_the_binding().await,
        "{:?}",
        exported(&namespace, "api").await.map(|secret| secret.into_keys().collect::<Vec<_>>())
    );
    assert_eq!(policy.status().await.unwrap().export.unwrap().name, "api-limit-export");
    // What the service runs for each request, with the keys that it composes behind CACHE_KEY_PREFIX.
    let mut connection = policy.connected().await;
    let mut counts = redis::pipe();
    counts.cmd("INCRBY").arg("api:domain_remote_address_10.0.0.1_1700000000").arg(1);
    counts.cmd("EXPIRE").arg("api:domain_remote_address_10.0.0.1_1700000000").arg(1).ignore();
    assert_eq!(counts.query_async::<Vec<i64>>(&mut connection).await.unwrap(), [1]);

    let user = exported(&namespace, "api").await.unwrap()["REDIS_AUTH"].clone();
    policy.change(json!({"access": {"rotation": 1}})).await;
    eventually("the Secret shows the new credentials", SOON, async || {
        shows_the_binding().await
            && exported(&namespace, "api").await.is_some_and(|secret| secret["REDIS_AUTH"] != user)
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let edit = Patch::Merge(json!({"stringData": {"REDIS_URL": "elsewhere:6379"}}));
    secrets.patch("api-limit-export", &PatchParams::default(), &edit).await.unwrap();
    eventually("an edited Secret is mended", SOON, shows_the_binding).await;
    policy.change(json!({"export": null})).await;
    eventually("the Secret goes", SOON, async || {
        exported(&namespace, "api").await.is_none() && policy.status().await.unwrap().export.is_none()
    })
    .await;
    policy.ready().await;
    namespace.delete().await;
}
