//! What public bug reports say breaks other operators, and what held here when it was tried by hand.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use redoubt::model::{NodeId, NodeKind};
use redoubt::redis::{Connection, server};
use serde_json::{Value, json};

use crate::children::{MENDED_WITHIN, are_mended, children};
use crate::commands::{kubectl, refuse, try_kubectl};
use crate::disturbances::{lost_only_what_no_replica_had, nothing_lost, print_verdict, rolled};
use crate::layer::is_ready;
use crate::operator::OPERATOR_NAMESPACE;
use crate::place;
use crate::test_namespace::{Layer, REDIS_7, SOON, TestNamespace, eventually};

/// Labels of everything that the layer consists of, StatefulSets and pods included, by `kind/name`.
fn labels(layer: &Layer) -> BTreeMap<String, BTreeMap<String, String>> {
    let kinds = "services,secrets,poddisruptionbudgets,statefulsets,pods";
    let all = kubectl(&["-n", &layer.identity.namespace, "get", kinds, "-o", "json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let of = |object: &Value| {
        let metadata = &object["metadata"];
        let name = format!("{}/{}", object["kind"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        (name.to_lowercase(), serde_json::from_value(metadata["labels"].clone()).unwrap_or_default())
    };
    all["items"].as_array().unwrap().iter().map(of).collect()
}

/// By them Services, the StatefulSet's controller and the operator find a pod: one that lost them is found by its name.
#[tokio::test(flavor = "multi_thread")]
async fn labels_by_which_a_pod_is_found_are_put_back_and_it_serves_on() {
    let (namespace, layer) = TestNamespace::with_layer("nl-unlabelled").await;
    let primary = layer.wait_until_in_sync().await;
    let (pods, restarts, object) =
        (layer.pod_uids().await, layer.restarts().await, format!("pod/{}", layer.pod(primary)));
    let before = labels(&layer)[&object].clone();
    for taken in [
        &["redoubt.dev/layer-", "redoubt.dev/component-", "redoubt.dev/role-"][..],
        &["redoubt.dev/layer=other"],
        &["redoubt.dev/node-"],
        &["redoubt.dev/component=other"],
    ] {
        kubectl(&[&["-n", &namespace.name, "label", "--overwrite", object.as_str()], taken].concat());
        let took = eventually("its labels are back", SOON, async || labels(&layer).get(&object) == Some(&before)).await;
        println!("{taken:?}: back after {took:?}");
        let controlled = async || {
            let pod = layer.pods().await.remove(&layer.pod(primary));
            pod.is_some_and(|pod| pod.owner_references().iter().any(|owner| owner.controller == Some(true)))
        };
        eventually("its StatefulSet has it again", SOON, controlled).await;
    }
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_others_stay_ours_come_back_and_no_pod_restarts() {
    let (namespace, layer) = TestNamespace::with_layer("nl-labels").await;
    let (pods, restarts) = (layer.pod_uids().await, layer.restarts().await);
    let (before, of_children) = (labels(&layer), children(&layer).await);
    let label = |object: &str, words: &[&str]| {
        kubectl(&[&["-n", &namespace.name, "label", "--overwrite", object], words].concat())
    };
    // As Helm and kustomize put them on all that they apply.
    label("datalayer/web", &["app.kubernetes.io/managed-by=Helm", "app.kubernetes.io/instance=release", "team=shop"]);
    layer.ready().await;
    assert_eq!(children(&layer).await, of_children, "what is on the layer is on no object of it");
    for object in before.keys() {
        label(object, &["team=shop"]);
    }
    let mut expected = before.clone();
    for labels in expected.values_mut() {
        labels.insert("team".to_owned(), "shop".to_owned());
    }
    layer.change(json!({"config": {"slowlog-max-len": "77"}})).await;
    layer.ready().await;
    assert_eq!(labels(&layer), expected, "ours and theirs");
    // Those by which we and the Services find an object. The controller of a StatefulSet lets a pod go that has lost them.
    for object in before.keys() {
        let is_pod = object.starts_with("pod/");
        let ours = expected[object].keys().filter(|name| match name.strip_prefix("redoubt.dev/") {
            Some(name) => !is_pod || ["role", "reads"].contains(&name),
            None => !is_pod && name.starts_with("app.kubernetes.io/"),
        });
        let gone: Vec<String> = ours.map(|name| format!("{name}-")).collect();
        assert!(!gone.is_empty(), "{object} has labels of ours");
        label(object, &gone.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut wrong = Vec::new();
    let are_back = async || {
        let now = labels(&layer);
        wrong = expected.keys().filter(|object| now.get(*object) != expected.get(*object)).cloned().collect();
        wrong.is_empty()
    };
    let took = crate::polling::eventually_or("the labels are back", MENDED_WITHIN, are_back).await;
    println!("labels that were removed: back after {:?}", took.unwrap_or_else(|| panic!("not back: {wrong:?}")));
    layer.change(json!({"config": null})).await;
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts), "no pod may restart");
    for object in std::iter::once("datalayer/web").chain(before.keys().map(String::as_str)) {
        label(object, &["team-"]);
    }
    label("datalayer/web", &["app.kubernetes.io/managed-by-", "app.kubernetes.io/instance-"]);
    are_mended(&layer, &of_children).await;
    namespace.leave(layer).await;
}

/// B16. `kubectl` marks the templates of all StatefulSets at once; pods are replaced one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_restart_of_all_replaces_one_pod_at_a_time_and_loses_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("nl-rollout").await;
    let old = layer.pod_uids().await;
    let verdict = layer
        .under_load(async |layer, _| {
            let selector = "redoubt.dev/layer=web";
            kubectl(&["-n", &namespace.name, "rollout", "restart", "statefulset", "-l", selector]);
            let mut least = old.len();
            eventually("all pods are new and ready", SOON, async || {
                let now = layer.pods().await;
                let serve = now.values().filter(|pod| is_ready(pod)).count();
                least = least.min(serve);
                serve == old.len() && now.values().all(|pod| !old.contains(pod.metadata.uid.as_ref().unwrap()))
            })
            .await;
            assert_eq!(least, old.len() - 1, "one at a time");
            layer.ready().await;
        })
        .await;
    nothing_lost("rollout restart of all StatefulSets", &verdict);
    namespace.leave(layer).await;
}

/// More pods of one StatefulSet would be one node twice, and a StatefulSet of none is a node that somebody stopped.
#[tokio::test(flavor = "multi_thread")]
async fn the_primarys_stateful_set_that_is_scaled_by_hand_is_put_back_and_loses_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("nl-scaled-by-hand").await;
    let sets: Api<StatefulSet> = layer.api();
    for count in ["2", "0"] {
        let verdict = layer
            .under_load(async |layer, primary| {
                let owner = layer.pod_owner(primary);
                let before = sets.get(&owner).await.unwrap().metadata.generation;
                let replicas = format!("--replicas={count}");
                kubectl(&["-n", &namespace.name, "scale", "statefulset", &owner, &replicas]);
                eventually("it is put back", MENDED_WITHIN, async || {
                    let now = sets.get(&owner).await.unwrap();
                    now.metadata.generation > before && now.spec.unwrap().replicas == Some(1)
                })
                .await;
                eventually("each node has its one pod", SOON, async || {
                    let pods = layer.pods().await;
                    pods.len() == 6 && pods.iter().all(|(name, pod)| name.ends_with("-0") && is_ready(pod))
                })
                .await;
                layer.ready().await;
            })
            .await;
        nothing_lost(&format!("the primary's StatefulSet scaled to {count}"), &verdict);
    }
    namespace.leave(layer).await;
}

/// A layer whose status the API server does not take is looked after all the same, and says in an event why its status is old.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_refused_is_reported_in_an_event_and_freezes_nothing() {
    let namespace = TestNamespace::create("nl-status-refused").await;
    let standalone = || json!({"mode": "Standalone"});
    let (layer, other) = (namespace.layer("web", standalone()).await, namespace.layer("other", standalone()).await);
    layer.ready().await;
    other.ready().await;
    let rule = json!({
        "apiGroups": ["redoubt.dev"], "apiVersions": ["v1alpha1"], "operations": ["UPDATE"], "resources": ["datalayers/status"],
    });
    refuse(&namespace.name, &rule, "object.metadata.name != 'web'");
    let events: Api<Event> = layer.api();
    let told = async || {
        let all = events.list(&ListParams::default().fields("reason=StatusRefused")).await.unwrap();
        let notes = all.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some("web"));
        notes.map(|event| event.message.unwrap_or_default()).collect::<Vec<_>>()
    };
    let mut number = 100;
    // Until the policy is in force statuses are taken.
    eventually("an event says that its status is refused", SOON, async || {
        number += 1;
        layer.change(json!({"config": {"slowlog-max-len": number.to_string()}})).await;
        crate::polling::eventually_or("told", std::time::Duration::from_secs(3), async || !told().await.is_empty())
            .await
            .is_some()
    })
    .await;
    let notes = told().await;
    assert!(notes.iter().all(|note| note.contains("a policy of the test refuses it")), "{notes:?}");
    layer.change(json!({"config": {"slowlog-max-len": "78"}})).await;
    other.change(json!({"config": {"slowlog-max-len": "79"}})).await;
    other.ready().await;
    for (layer, expected) in [(&layer, "78"), (&other, "79")] {
        let connection = Connection::open(&layer.as_operator(NodeId::data(0)).await).await.unwrap();
        eventually("the change is in force", SOON, async || {
            server::config_get(&connection, &["slowlog-max-len"]).await.unwrap()["slowlog-max-len"] == expected
        })
        .await;
    }
    assert_eq!(layer.condition("Ready").await, None, "no status speaks of this generation");
    kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", &namespace.name]);
    layer.ready().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_no_version_knows_are_refused_by_name_and_never_stored() {
    let (namespace, layer) = TestNamespace::with_layer("nl-unknown-fields").await;
    let (stored, pods) = (layer.object().await, layer.pod_uids().await);
    let mut object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer",
        "metadata": {"name": "web", "namespace": namespace.name}, "spec": stored.spec});
    object["spec"]["galactic"] = json!(true);
    object["spec"]["memory"] = json!({"galactic": true});
    object["galactic"] = json!({"deep": 1});
    let file = std::env::temp_dir().join(format!("redoubt-unknown-{}.json", std::process::id()));
    std::fs::write(&file, object.to_string()).unwrap();
    let replace = |how: &str| try_kubectl(&["replace", how, "-f", &file.display().to_string()]);
    let refused = replace("--validate=strict").unwrap_err();
    for field in ["galactic", "spec.galactic", "spec.memory.galactic"] {
        assert!(refused.contains(&format!(r#"unknown field "{field}""#)), "{refused}");
    }
    replace("--validate=ignore").unwrap();
    let _ = std::fs::remove_file(file);
    let now = serde_json::to_value(layer.object().await).unwrap();
    assert!(!now["spec"].to_string().contains("galactic") && now.get("galactic").is_none(), "{now}");
    layer.ready().await;
    assert_eq!(layer.pod_uids().await, pods, "nothing restarts");
    namespace.leave(layer).await;
}

/// The key of all passwords is lost with the operator's memory. Each layer's Secret has its passwords still.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_root_key_changes_no_password_and_restarts_nothing() {
    let (namespace, layer) = TestNamespace::with_layer("nl-root-key").await;
    let (pods, restarts, before) = (layer.pod_uids().await, layer.restarts().await, layer.binding().await);
    let root =
        || kubectl(&["-n", OPERATOR_NAMESPACE, "get", "secret", "redoubt-root-key", "-o", "jsonpath={.data.key}"]);
    let lost = root();
    place::stop_operator(&namespace.name);
    kubectl(&["-n", OPERATOR_NAMESPACE, "delete", "secret", "redoubt-root-key"]);
    place::start_operator(&namespace.name);
    assert_ne!(root(), lost, "another is made");
    layer.change(json!({"config": {"slowlog-max-len": "80"}})).await;
    layer.ready().await;
    assert_eq!(layer.binding().await, before);
    assert!(layer.set("kept").await, "its user logs in as before");
    // One that is edited is not taken for one of another root key.
    let edit = r#"{"stringData": {"password": "guessed"}}"#;
    kubectl(&["-n", &namespace.name, "patch", "secret", "web-redis-app", "-p", edit]);
    eventually("the edit is undone", MENDED_WITHIN, async || layer.binding().await == before).await;
    layer.change(json!({"config": null})).await;
    layer.ready().await;
    assert_eq!((layer.pod_uids().await, layer.restarts().await), (pods, restarts));
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_during_a_creation_goes_and_its_name_can_be_used_again() {
    let namespace = TestNamespace::create("nl-namespace-gone").await;
    for pods in [1, 4] {
        let layer = namespace.layer("web", json!({})).await;
        eventually("some pods are there", SOON, async || layer.pods().await.len() >= pods).await;
        kubectl(&["delete", "namespace", &namespace.name, "--wait=true", "--timeout=120s"]);
        kubectl(&["create", "namespace", &namespace.name]);
    }
    namespace.layer("web", json!({})).await.ready().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purpose_that_changes_back_and_forth_while_primaries_die_loses_what_no_replica_had_at_most() {
    let namespace = TestNamespace::create("nl-purposes").await;
    let layer = namespace.layer("web", json!({"purpose": "Sessions"})).await;
    layer.ready().await;
    let pods = layer.pod_uids().await;
    for (purpose, append_only, policy) in [("Cache", "no", "allkeys-lfu"), ("Sessions", "yes", "noeviction")] {
        let verdict = layer
            .under_load(async |layer, primary| {
                let served = layer.serving().await;
                layer.change(json!({"purpose": purpose})).await;
                layer.kill_engine(primary).await;
                layer.has_a_new_primary(served).await;
                layer.ready().await;
            })
            .await;
        print_verdict(&format!("purpose {purpose}"), &verdict);
        lost_only_what_no_replica_had(&verdict);
        for node in (0..3).map(NodeId::data) {
            let connection = Connection::open(&layer.as_operator(node).await).await.unwrap();
            let live = server::config_get(&connection, &["appendonly", "maxmemory-policy"]).await.unwrap();
            assert_eq!(
                (live["appendonly"].as_str(), live["maxmemory-policy"].as_str()),
                (append_only, policy),
                "{node}"
            );
        }
    }
    println!("purposes: {} of {} pods are new", layer.pod_uids().await.difference(&pods).count(), pods.len());
    assert_eq!(layer.endpoints().await.keys().filter(|node| node.kind == NodeKind::Data).count(), 3);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_becomes_valkey_in_place_and_nothing_is_lost() {
    let namespace = TestNamespace::create("nl-valkey").await;
    let layer = namespace.layer("web", json!({"engine": {"image": REDIS_7}})).await;
    layer.ready().await;
    rolled(&layer, "Redis 7.0 to Valkey 8.1", json!({"engine": {"image": "localhost/valkey:8.1"}})).await;
    namespace.delete().await;
}
