//! Objects of a layer that somebody deletes or edits, or that somebody else has.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use redoubt::api::data_layer::DataLayer;
use redoubt::model::NodeId;
use serde_json::{Value, json};

use crate::children::{MENDED_WITHIN, api_of, are_mended, children, uid_of};
use crate::commands::kubectl;
use crate::place;
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn each_child_that_is_deleted_or_edited_is_as_it_was_in_10_s_and_no_pod_restarts() {
    let (namespace, layer) = TestNamespace::with_layer("nl-children").await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let before = children(&layer).await;
    // 6 node Services and 3 shared ones, 2 Secrets, 2 disruption budgets.
    assert_eq!(before.len(), 13, "{:?}", before.keys());
    let mut slowest = Duration::ZERO;
    for child in before.keys() {
        let (api, name) = api_of(&layer, child);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        slowest = slowest.max(are_mended(&layer, &before).await);
    }
    println!("deleted children: the slowest was as before after {slowest:?}");
    slowest = Duration::ZERO;
    for child in before.keys() {
        let label = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}});
        let further = match child.split_once('/').unwrap() {
            ("service", "web-redis") => {
                json!({"spec": {"selector": {"statefulset.kubernetes.io/pod-name": "web-redis-9-0"}}})
            }
            ("service", _) => json!({"spec": {"selector": {"redoubt.dev/layer": "nobody"}}}),
            ("secret", "web-redis-app") => json!({"stringData": {"host": "elsewhere", "password": "guessed"}}),
            ("secret", _) => json!({"stringData": {"operator-password": "guessed"}}),
            _ => json!({"spec": {"minAvailable": 0}}),
        };
        for patch in [label, further] {
            let (api, name) = api_of(&layer, child);
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
        slowest = slowest.max(are_mended(&layer, &before).await);
    }
    println!("edited children: the slowest was as before after {slowest:?}");
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "no pod may restart");
    stateful_set_by_hand(&layer).await;
    namespace.leave(layer).await;
}

/// A StatefulSet that was scaled to nothing has its pod again; it loses it meanwhile, unless it is scaled back before. No other pod
/// is a new one.
async fn stateful_set_by_hand(layer: &Layer) {
    let primary = layer.wait_until_in_sync().await;
    let replica = (0..3).map(NodeId::data).find(|node| *node != primary).unwrap();
    let old = layer.pods().await;
    let owner = layer.pod_owner(replica);
    kubectl(&["-n", &layer.identity.namespace, "scale", &format!("statefulset/{owner}"), "--replicas=0"]);
    let sets: Api<StatefulSet> = layer.api();
    eventually("the StatefulSet has its pod again", SOON, async || {
        let set = sets.get(&owner).await.unwrap();
        let (spec, status) = (set.spec.unwrap(), set.status.unwrap());
        spec.replicas == Some(1)
            && status.observed_generation == set.metadata.generation
            && status.ready_replicas == Some(1)
    })
    .await;
    layer.ready().await;
    let now = layer.pods().await;
    for (name, pod) in old.iter().filter(|(name, _)| **name != layer.pod(replica)) {
        assert_eq!(now[name].metadata.uid, pod.metadata.uid, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_on_a_server_by_hand_is_mended_and_read_back() {
    use redoubt::redis::{Connection, sentinel, server};
    let (namespace, layer) = TestNamespace::with_layer("nl-drift").await;
    for node in [NodeId::data(0), NodeId::data(1)] {
        let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
        server::config_set(&connection, "maxmemory-policy", "allkeys-lru").await.unwrap();
        server::config_set(&connection, "maxmemory", "0").await.unwrap();
        server::acl_set_user(&connection, "intruder", &["on".into(), "nopass".into(), "+@all".into(), "~*".into()])
            .await
            .unwrap();
    }
    sent_by_an_intruder(&layer, &["FUNCTION", "DELETE", "redoubt"]).await;
    let master_name = layer.identity.master_name();
    let sentinel = Connection::open(&layer.as_operator(NodeId::sentinel(0)).await).await.unwrap();
    for (option, value) in [("parallel-syncs", "1"), ("failover-timeout", "60000")] {
        sentinel::set(&sentinel, &master_name, option, value).await.unwrap();
    }
    server::acl_set_user(&sentinel, "intruder", &["on".into(), "nopass".into(), "+@all".into()]).await.unwrap();
    eventually("the Sentinel is mended", MENDED_WITHIN, async || {
        let known = sentinel::master(&sentinel, &master_name).await.unwrap().unwrap();
        let users = server::acl_list(&sentinel).await.unwrap();
        (known.parallel_syncs, known.failover_timeout) == (3, Duration::from_secs(15))
            && !users.iter().any(|user| user.contains("intruder"))
    })
    .await;
    let expected = &redoubt::dataplane::built_in_libraries()[0].digest;
    eventually("everything is mended", MENDED_WITHIN, async || {
        let mut mended = true;
        for node in [NodeId::data(0), NodeId::data(1)] {
            let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
            let live = server::config_get(&connection, &["maxmemory", "maxmemory-policy"]).await.unwrap();
            let users = server::acl_list(&connection).await.unwrap();
            let digest = connection.query::<String>(redis::cmd("FCALL_RO").arg("redoubt_digest").arg(0)).await;
            mended &= live["maxmemory"] != "0"
                && live["maxmemory-policy"] == "noeviction"
                && !users.iter().any(|user| user.contains("intruder"))
                && digest.is_ok_and(|digest| digest == *expected);
        }
        mended
    })
    .await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    for words in [&["FUNCTION", "FLUSH"][..], &["FLUSHALL"][..]] {
        sent_by_an_intruder(&layer, words).await;
        let primary = layer.wait_until_in_sync().await;
        let back = eventually("the functions are back", MENDED_WITHIN, async || {
            layer.functions(primary).await.as_ref() == Some(expected)
        })
        .await;
        println!("{words:?}: functions there {back:?} later");
    }
    assert_eq!(layer.get("kept").await, None, "everything else was flushed");
    namespace.leave(layer).await;
}

/// Sends the primary what no user of ours may.
async fn sent_by_an_intruder(layer: &Layer, words: &[&str]) {
    use redoubt::redis::{Connection, Endpoint, Secret, server};
    let primary = layer.wait_until_in_sync().await;
    let operator = Connection::open(&layer.as_operator(primary).await).await.unwrap();
    let endpoint = layer.endpoints().await.remove(&primary).unwrap();
    let endpoint = Endpoint { username: "intruder".to_owned(), password: Secret::new("x"), ..endpoint };
    let rules = ["on", "nopass", "+@all", "~*"].map(str::to_owned);
    let mut command = redis::Cmd::new();
    command.arg(words);
    // The operator removes the user at any moment.
    eventually("the intruder is through", SOON, async || {
        server::acl_set_user(&operator, "intruder", &rules).await.unwrap();
        let Ok(intruder) = Connection::open(&endpoint).await else { return false };
        intruder.query::<()>(&command).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_our_names_that_are_not_ours_are_left_alone_and_told() {
    let namespace = TestNamespace::create("nl-name-taken").await;
    let foreign = |api: &str, kind: &str, name: &str, further: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        object
    };
    let port = json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}}});
    let labels = json!({"app": "theirs"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "theirs", "image": "theirs"}]}});
    let workload =
        json!({"spec": {"replicas": 0, "serviceName": "theirs", "selector": {"matchLabels": labels}, "template": pod}});
    let budget = json!({"spec": {"maxUnavailable": 7, "selector": {"matchLabels": labels}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}});
    let all = [
        foreign("v1", "Service", "web-redis", port.clone()),
        foreign("v1", "Service", "web-redis-1", port),
        foreign("v1", "Secret", "web-redis-app", json!({"stringData": {"password": "theirs"}})),
        foreign("v1", "Secret", "web-redis-system", json!({"stringData": {"password": "theirs"}})),
        foreign("policy/v1", "PodDisruptionBudget", "web-redis", budget),
        foreign("apps/v1", "StatefulSet", "web-redis-2", workload),
        foreign("v1", "PersistentVolumeClaim", "data-web-redis-0-0", claim),
    ];
    let all: Vec<DynamicObject> = all.into_iter().map(|object| serde_json::from_value(object).unwrap()).collect();
    let api = |object: &DynamicObject| -> Api<DynamicObject> {
        let kind = kube::core::GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        Api::namespaced_with(namespace.client.clone(), &namespace.name, &ApiResource::from_gvk(&kind))
    };
    for object in &all {
        api(object).create(&kube::api::PostParams::default(), object).await.unwrap();
    }
    let named = |object: &DynamicObject| {
        let kind = &object.types.as_ref().unwrap().kind;
        format!("{kind} {}/{}", namespace.name, object.metadata.name.as_ref().unwrap())
    };
    let layer = namespace.layer("web", json!({})).await;
    let mut taken: Vec<&DynamicObject> = all.iter().collect();
    while !taken.is_empty() {
        let mut told = None;
        eventually("the layer says whose name is taken", SOON, async || {
            let Some((status, reason, message)) = layer.condition("Accepted").await else { return false };
            told = taken.iter().position(|object| message.starts_with(&format!("{} ", named(object))));
            status == "False" && reason == "NameTaken" && told.is_some()
        })
        .await;
        for object in &taken {
            let now = api(object).get(object.metadata.name.as_ref().unwrap()).await.unwrap();
            let managers = now.metadata.managed_fields.unwrap_or_default();
            let is_ours = |manager: Option<&str>| manager.is_some_and(|manager| manager.starts_with("redoubt"));
            assert!(!managers.iter().any(|by| is_ours(by.manager.as_deref())), "{} was applied over", named(object));
            assert_eq!(now.metadata.owner_references, None, "{} was seized", named(object));
        }
        let freed = taken.remove(told.unwrap());
        api(freed).delete(freed.metadata.name.as_ref().unwrap(), &kube::api::DeleteParams::default()).await.unwrap();
    }
    layer.ready().await;
    namespace.delete().await;
}

/// As a backup restores them, or `kubectl patch` leaves them.
#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_layer_that_lost_their_owner_are_taken_over_and_no_pod_restarts() {
    let (namespace, layer) = TestNamespace::with_layer("nl-no-owner").await;
    layer.wait_until_in_sync().await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let all = [
        "service/web-redis",
        "service/web-redis-1",
        "secret/web-redis-app",
        "secret/web-redis-system",
        "poddisruptionbudget/web-redis",
        "statefulset/web-redis-2",
    ];
    let of =
        |object: &str, words: &[&str]| kubectl(&[&["-n", &namespace.name, words[0], object], &words[1..]].concat());
    for object in all {
        of(object, &["patch", "--type=json", "-p", r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#]);
    }
    let owner = |object: &str| of(object, &["get", "-o", "jsonpath={.metadata.ownerReferences[*].uid}"]);
    let took = eventually("each has its owner again", SOON, async || {
        all.iter().all(|object| owner(object) == layer.identity.uid)
    })
    .await;
    println!("taken over after {took:?}");
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_layer_is_left_alone_and_is_mended_when_it_goes_on() {
    let (namespace, layer) = TestNamespace::with_layer("nl-paused").await;
    layer.change(json!({"paused": true})).await;
    eventually("it says that it is paused", SOON, async || {
        layer.condition("Progressing").await.is_some_and(|(_, _, message)| message.to_lowercase().contains("paused"))
    })
    .await;
    let faults = place::faults(&namespace.name);
    let before = faults.changes();
    kubectl(&["-n", &namespace.name, "delete", "service", "web-redis-replicas"]);
    let watched = Instant::now();
    // Longer than anything takes to come back: nothing must happen, which no condition can announce.
    while watched.elapsed() < MENDED_WITHIN {
        assert_eq!(uid_of(&layer, "service/web-redis-replicas"), "");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What is seen is reported all the same, and the audit of a new layer tells some seconds later what it found.
    assert_eq!(faults.changes(), before, "a paused layer is not changed");
    layer.change(json!({"paused": false})).await;
    eventually("it is back", MENDED_WITHIN, async || !uid_of(&layer, "service/web-redis-replicas").is_empty()).await;
    namespace.leave(layer).await;
}

#[tokio::test]
async fn that_a_layer_was_ready_once_outlives_its_statefulsets_and_pods() {
    let (namespace, layer) = TestNamespace::with_layer("nl-mark").await;
    layer.ready().await;
    let layers: Api<DataLayer> = layer.api();
    assert_eq!(layers.get("web").await.unwrap().status.unwrap().initialised, Some(true));
    place::stop_operator(&namespace.name);
    // Ready turns False before the objects are made again.
    let mut told = layers.get("web").await.unwrap();
    for condition in &mut told.status.as_mut().unwrap().conditions {
        if condition.type_ == "Ready" {
            (condition.status, condition.reason) = ("False".to_owned(), "NoPrimary".to_owned());
        }
    }
    layers.replace_status("web", &PostParams::default(), &told).await.unwrap();
    let (sets, pods): (Api<StatefulSet>, Api<Pod>) = (layer.api(), layer.api());
    sets.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    let are_gone = async || {
        let found =
            (sets.list(&ListParams::default()).await.unwrap(), pods.list(&ListParams::default()).await.unwrap());
        found.0.items.is_empty() && found.1.items.is_empty()
    };
    eventually("the StatefulSets and pods are gone", SOON, are_gone).await;
    place::start_operator(&namespace.name);
    eventually("they are made again", SOON, async || sets.list(&ListParams::default()).await.unwrap().items.len() == 6)
        .await;
    for set in sets.list(&ListParams::default()).await.unwrap() {
        let mark = set.metadata.annotations.unwrap()["redoubt.dev/initialised"].clone();
        assert_eq!(mark, "true", "{:?}", set.metadata.name);
    }
    layer.ready().await;
    namespace.delete().await;
}
