//! What Kubernetes refuses, and what is taken back.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, LimitRange, Pod, ResourceQuota};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use redoubt::api::data_layer::DataLayer;
use redoubt::model::NodeId;
use redoubt::redis::{Connection, server};
use serde_json::{Value, json};

use crate::commands::try_kubectl;
use crate::faults::Faults;
use crate::place;
use crate::store::Store;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

/// A quota refuses the pods of a new layer: its status says so in Kubernetes' words, and the corrected specification is applied.
#[tokio::test]
async fn a_layer_whose_pods_a_quota_refuses_says_so_and_takes_its_correction() {
    let namespace = TestNamespace::create("refused-by-quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"limits.memory": "3Gi"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let layer = namespace.layer("web", json!({"memory": {"limit": "4Gi"}})).await;
    eventually("the quota is named", SOON, async || {
        let degraded = layer.condition("Degraded").await;
        degraded.is_some_and(|(status, _, message)| status == "True" && message.contains("exceeded quota: small"))
    })
    .await;
    layer.change(json!({"memory": {"limit": "256Mi"}})).await;
    layer.ready().await;
    namespace.delete().await;
}

async fn degraded(layer: &Layer, reason: &str, words: &[&str]) {
    eventually(&format!("it is degraded by {reason}"), SOON, async || {
        layer.condition("Degraded").await.is_some_and(|(status, found, message)| {
            status == "True" && found == reason && words.iter().all(|words| message.contains(words))
        })
    })
    .await;
}

/// Takes the pod of a replica away, and answers the new one, which the kubelet of the tests does not start.
async fn held_replica(layer: &Layer) -> (NodeId, Pod) {
    let primary = layer.wait_until_in_sync().await;
    let away = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    let name = layer.pod(away);
    let old = layer.pods().await.remove(&name).unwrap();
    crate::plane::plane().kubelet.hold(&layer.identity.namespace, &name);
    layer.delete_pod(away).await;
    let mut new = None;
    eventually("its pod is made again", SOON, async || {
        new = layer.pods().await.remove(&name).filter(|it| it.uid() != old.uid());
        new.is_some()
    })
    .await;
    (away, new.unwrap())
}

/// Writes a warning about an object, as a component of Kubernetes does.
async fn warn(layer: &Layer, about: Value, reason: &str, words: &str) {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let event = json!({
        "metadata": {"generateName": "warning.", "namespace": layer.identity.namespace}, "involvedObject": about,
        "type": "Warning", "reason": reason, "message": words, "count": 1, "firstTimestamp": now, "lastTimestamp": now,
    });
    layer.api::<Event>().create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
}

/// The kubelet writes it as an event of the pod, whose status says nothing of it.
#[tokio::test]
async fn a_volume_that_is_not_mounted_is_reported_in_the_words_of_the_kubelet() {
    let (namespace, layer) = TestNamespace::with_layer("failed-mount").await;
    let (away, pod) = held_replica(&layer).await;
    let words = "MountVolume.SetUp failed for volume \"pvc-1\" : rpc error: code = Internal desc = no such device";
    let about = json!({
        "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "namespace": namespace.name, "uid": pod.uid(),
    });
    warn(&layer, about, "FailedMount", words).await;
    degraded(&layer, "FailedMount", &[&format!("the pod of {away} does not run: FailedMount: {words}")]).await;
    assert!(layer.is("Ready").await, "the others serve");
    crate::plane::plane().kubelet.release(&namespace.name, &pod.name_any());
    layer.ready().await;
    layer.nothing_is_wrong().await;
    namespace.leave(layer).await;
}

/// The scheduler says that a claim is unbound, and only the claim says why.
#[tokio::test]
async fn a_claim_that_gets_no_volume_is_reported_in_the_words_of_the_scheduler_and_of_the_claims_own() {
    let (namespace, layer) = TestNamespace::with_layer("no-class").await;
    let (away, pod) = held_replica(&layer).await;
    let unbound = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    let status = json!({"status": {"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unbound}]}});
    layer.api::<Pod>().patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    degraded(&layer, "Unschedulable", &[&format!("the pod of {away} does not run: Unschedulable: {unbound}")]).await;
    let words = "storageclass.storage.k8s.io \"no-such-class\" not found";
    let about = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": format!("data-{}", pod.name_any()),
        "namespace": namespace.name,
    });
    warn(&layer, about, "ProvisioningFailed", words).await;
    degraded(&layer, "Unschedulable", &[&format!("{unbound}; ProvisioningFailed: {words}")]).await;
    assert!(layer.is("Ready").await, "the others serve");
    crate::plane::plane().kubelet.release(&namespace.name, &pod.name_any());
    layer.ready().await;
    layer.nothing_is_wrong().await;
    namespace.leave(layer).await;
}

/// Storage that makes no volume below 1Gi takes those of Sentinels as they are by default. A smaller one is told in Kubernetes' words.
#[tokio::test]
async fn storage_with_a_minimum_takes_a_sentinels_volume_and_a_smaller_one_is_reported() {
    let namespace = TestNamespace::create("least-volume").await;
    let ranges: Api<LimitRange> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let least = json!({"metadata": {"name": "least"}, "spec": {"limits": [{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(least).unwrap()).await.unwrap();
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    // Sentinels that are made from now on have another.
    layer.change(json!({"failover": {"sentinels": 5, "sentinelVolume": {"size": "64Mi"}}})).await;
    degraded(&layer, "FailedCreate", &["minimum storage usage per PersistentVolumeClaim is 1Gi"]).await;
    assert!(layer.is("Ready").await, "the others serve");
    namespace.delete().await;
}

/// The image that runs stays whatever is left out, and one that cannot read the files is refused with both versions.
#[tokio::test]
async fn an_engine_that_cannot_read_the_files_is_refused_with_both_versions_and_no_image_is_left_out() {
    let namespace = TestNamespace::create("older-engine").await;
    let newer = "localhost/redis:8.0";
    let layer = namespace.layer("web", json!({"mode": "Standalone", "engine": {"image": newer}})).await;
    layer.ready().await;
    let pods = layer.pod_uids().await;
    for patch in [r#"{"spec":{"engine":{"image":null}}}"#, r#"{"spec":{"engine":null}}"#] {
        let refused = try_kubectl(&["-n", &namespace.name, "patch", "dl", "web", "--type=merge", "-p", patch]);
        assert!(refused.as_ref().is_err_and(|words| words.contains("engine.image cannot be removed")), "{refused:?}");
    }
    layer.change(json!({"engine": {"image": crate::test_namespace::REDIS_7}})).await;
    degraded(&layer, "OlderEngine", &["redis 7.0", "redis 8.0"]).await;
    assert!(layer.is("Ready").await, "it serves as it was");
    assert_eq!(layer.pod_uids().await, pods, "nothing is restarted");
    layer.change(json!({"engine": {"image": newer}})).await;
    layer.ready().await;
    namespace.delete().await;
}

/// An image may not say its version. Then the first replica of a roll tells it, which is as far as the roll goes.
#[tokio::test]
async fn an_engine_whose_image_says_no_version_and_that_cannot_read_the_files_is_refused_at_the_first_replica() {
    let namespace = TestNamespace::create("older-silent").await;
    let newer = "localhost/of-redis-8.0";
    let layer = namespace.layer("web", json!({"engine": {"image": newer}})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let (primary, old) = (layer.wait_until_in_sync().await, layer.pods().await);
    for patch in [r#"{"spec":{"engine":{"image":null}}}"#, r#"{"spec":{"engine":null}}"#] {
        let refused = try_kubectl(&["-n", &namespace.name, "patch", "dl", "web", "--type=merge", "-p", patch]);
        assert!(refused.as_ref().is_err_and(|words| words.contains("engine.image cannot be removed")), "{refused:?}");
    }
    layer.change(json!({"engine": {"image": "localhost/of-redis-7.0"}})).await;
    degraded(&layer, "OlderEngine", &["redis 7.0", "redis 8.0"]).await;
    let now = layer.pods().await;
    let is_new = |name: &&String| now[*name].uid() != old[*name].uid();
    let tried: Vec<&String> = old.keys().filter(is_new).collect();
    assert_eq!(tried.len(), 1, "{tried:?}");
    assert_ne!(*tried[0], layer.pod(primary));
    assert!(layer.is("Ready").await, "the others serve");
    assert!(layer.set("meanwhile").await);
    layer.change(json!({"engine": {"image": newer}})).await;
    layer.ready().await;
    layer.wait_until_in_sync().await;
    for key in ["kept", "meanwhile"] {
        assert_eq!(layer.get(key).await.as_deref(), Some(key));
    }
    namespace.delete().await;
}

/// Less memory than the data needs is neither rolled out nor set, whether a limit or a share says so, until the data fits.
#[tokio::test]
async fn memory_below_the_data_is_reported_and_carried_out_once_the_data_fits() {
    const MIB: u64 = 1 << 20;
    let namespace = TestNamespace::create("nl-too-small").await;
    let layer = namespace.layer("web", json!({"mode": "Standalone"})).await;
    layer.ready().await;
    let connection = Connection::open(&layer.endpoints().await[&NodeId::data(0)]).await.unwrap();
    let fill = || async {
        for number in 0..50 {
            let value = "x".repeat(1_000_000);
            connection.query::<()>(redis::cmd("SET").arg(format!("large{number}")).arg(value)).await.unwrap();
        }
    };
    let maxmemory = async || {
        let operator = Connection::open(&layer.as_operator(NodeId::data(0)).await).await.unwrap();
        server::config_get(&operator, &["maxmemory"]).await.unwrap()["maxmemory"].parse::<u64>().unwrap()
    };
    let keys: Vec<String> = (0..50).map(|number| format!("large{number}")).collect();
    // A share is set live, and a limit restarts the pod.
    for (memory, restarts) in [(json!({"maxmemoryPercent": 15}), false), (json!({"limit": "80Mi"}), true)] {
        fill().await;
        let (before, pods) = (maxmemory().await, layer.pod_uids().await);
        layer.change(json!({"memory": memory})).await;
        degraded(&layer, "MemoryBelowData", &["redis-0 is not changed", "the primary holds"]).await;
        assert!(layer.is("Ready").await, "it serves as it was");
        assert_eq!((maxmemory().await, layer.pod_uids().await), (before, pods.clone()), "{memory}");
        assert_eq!(connection.query::<usize>(redis::cmd("STRLEN").arg("large0")).await.unwrap(), 1_000_000);
        connection.query::<()>(redis::cmd("UNLINK").arg(&keys)).await.unwrap();
        layer.ready().await;
        assert!(maxmemory().await < 45 * MIB, "{memory}");
        assert_eq!(layer.pod_uids().await != pods, restarts, "{memory}");
        if !restarts {
            layer.change(json!({"memory": null})).await;
            layer.ready().await;
        }
    }
    namespace.delete().await;
}

/// Nor while its objects are made: pods that were made without volumes never got them, and the store stayed refused for as long as it
/// was there.
#[tokio::test]
async fn an_edit_of_a_dedicated_layer_is_not_carried_out_until_it_is_taken_back() {
    let namespace = TestNamespace::create("edited-meanwhile").await;
    // It makes the layer's object and nothing else.
    place::start_operator_with(&namespace.name, Faults::ending_after(1));
    let spec = json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone"}}});
    let store = Store::create(&namespace, "web", spec).await;
    let layers: Api<DataLayer> = Api::namespaced(namespace.client.clone(), &namespace.name);
    eventually("the layer is made", SOON, async || layers.get_opt("web-sessions").await.unwrap().is_some()).await;
    place::stop_operator(&namespace.name);
    let edit = Patch::Merge(json!({"spec": {"purpose": "Cache", "maxConnections": 77}}));
    layers.patch("web-sessions", &PatchParams::default(), &edit).await.unwrap();
    // A pass over the layer takes less than the one over the store, which takes the edit back.
    let slow = Faults::default();
    slow.delay_writes("/datalayers/web-sessions", Duration::from_secs(3));
    place::start_operator_with(&namespace.name, slow);
    let workloads: Api<StatefulSet> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let made = async || workloads.list(&ListParams::default()).await.unwrap().items;
    eventually("the layer's objects are made", SOON, async || !made().await.is_empty()).await;
    for workload in made().await {
        assert!(workload.spec.unwrap().volume_claim_templates.is_some_and(|claims| !claims.is_empty()));
    }
    store.ready().await;
    namespace.delete().await;
}

/// Whether the store names the field or not, an edit of a dedicated layer is taken back and told of.
#[tokio::test]
async fn an_edit_of_a_dedicated_layer_is_taken_back_and_names_the_store() {
    let namespace = TestNamespace::create("edited-by-hand").await;
    let spec =
        json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone", "memory": {"limit": "256Mi"}}}});
    let store = Store::create(&namespace, "web", spec).await;
    let layers: Api<DataLayer> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let name = "web-sessions";
    eventually("the layer is made", SOON, async || layers.get_opt(name).await.unwrap().is_some()).await;
    let made = layers.get(name).await.unwrap();
    for edit in [
        json!({"spec": {"memory": {"limit": "512Mi"}, "maxConnections": 77, "paused": true}}),
        json!({"spec": {"purpose": "Cache", "access": {"application": true}, "config": {"timeout": "9"}}}),
        json!({"spec": {"podMetadata": {"labels": {"team": "other"}}, "audit": {"mode": "Repair"}}}),
    ] {
        layers.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        eventually("it is as the store has it", SOON, async || layers.get(name).await.unwrap().spec == made.spec).await;
    }
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    eventually("an event names the store", SOON, async || {
        let about = format!("involvedObject.uid={}", made.uid().unwrap());
        let found = events.list(&ListParams::default().fields(&about)).await.unwrap();
        found.items.iter().any(|event| {
            let note = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("EditUndone")
                && note.contains("maxConnections")
                && note.contains("SessionStore web")
        })
    })
    .await;
    // One field no layer gives up. It keeps no other edit in force, and the store's status says what to do.
    let edit = json!({"spec": {"persistence": {"volume": {"size": "1Gi"}}, "maxConnections": 88}});
    layers.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    eventually("the rest of the edit is taken back", SOON, async || {
        layers.get(name).await.unwrap().spec.max_connections == made.spec.max_connections
    })
    .await;
    let stays = async |is_told: bool| {
        eventually("the store tells what stays", SOON, async || {
            let status = store.api().get("web").await.unwrap().status.unwrap_or_default();
            status.conditions.iter().any(|it| {
                it.type_ == "Degraded"
                    && it.message.contains("persistence.volume.size of the layer was set by hand") == is_told
            })
        })
        .await;
    };
    stays(true).await;
    store.change(json!({"layer": {"dedicated": {"persistence": {"volume": {"size": "1Gi"}}}}})).await;
    stays(false).await;
    namespace.delete().await;
}
