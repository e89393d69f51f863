//! The chart as its users meet it: upgraded, uninstalled, installed again, tested, and confined to one namespace.

use serde_json::json;

use crate::commands::{helm, kubectl};
use crate::place::{OPERATOR_NAMESPACE, install_operator, scale_operator};
use crate::test_namespace::{Layer, SOON, TestNamespace, eventually};

/// UIDs of the layer's pods with the runs of their containers: the same means that nothing was stopped.
fn processes(layer: &Layer) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].containerID}{\"\\n\"}{end}";
    let selector = format!("redoubt.dev/layer={}", layer.identity.name);
    kubectl(&["-n", &layer.identity.namespace, "get", "pods", "-l", &selector, "--sort-by=.metadata.name", "-o", path])
}

/// UIDs of the operator's pods.
fn operators() -> String {
    let selector = "app.kubernetes.io/name=redoubt-operator";
    kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.uid}"])
}

/// Waits until an operator has led and changed the layer by what it is told: proof that it looks after it.
async fn is_looked_after(layer: &Layer, timeout: &str) {
    layer.change(json!({"config": {"timeout": timeout}})).await;
    layer.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_the_chart_restarts_no_data_pod() {
    let namespace = TestNamespace::create("e2e-chart-upgrade").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    let (before, old) = (processes(&layer), operators());
    // Everything that a new version changes for running layers: the operator's pods, and the defaults of new layers.
    install_operator(&[
        "--set=logLevel=debug",
        "--set-string=podAnnotations.upgraded=yes",
        "--set=concurrency=8",
        "--set=defaultEngineImage=localhost/valkey:8.1",
    ]);
    eventually("the old operators are gone", SOON, async || {
        let now = operators();
        old.split(' ').all(|uid| !now.contains(uid))
    })
    .await;
    is_looked_after(&layer, "300").await;
    assert_eq!(processes(&layer), before);
    install_operator(&[]);
    is_looked_after(&layer, "200").await;
    assert_eq!(processes(&layer), before);
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_leaves_the_layers_and_a_new_install_adopts_them_without_a_restart() {
    let namespace = TestNamespace::create("e2e-chart-uninstall").await;
    let layer = namespace.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    let (before, password) = (processes(&layer), layer.binding().await["password"].clone());
    // The definitions too: theirs is a chart of its own, which keeps them. Here the tests themselves have applied them before.
    let chart = ["redoubt-crds", "charts/redoubt-crds", "--namespace", OPERATOR_NAMESPACE];
    let definitions =
        [&["upgrade", "--install", "--take-ownership", "--server-side=true", "--force-conflicts"], &chart[..]];
    helm(&definitions.concat());
    helm(&["uninstall", "redoubt", "--namespace", OPERATOR_NAMESPACE, "--wait"]);
    helm(&["uninstall", "redoubt-crds", "--namespace", OPERATOR_NAMESPACE]);
    eventually("no operator is left", SOON, async || operators().is_empty()).await;
    let roles =
        kubectl(&["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=redoubt", "-o", "name"]);
    assert_eq!(roles, "", "rights outlive the operator");
    assert_eq!(processes(&layer), before);
    assert_eq!(layer.get("kept").await.as_deref(), Some("kept"));
    assert!(layer.set("written without an operator").await);
    install_operator(&[]);
    is_looked_after(&layer, "300").await;
    assert_eq!(processes(&layer), before);
    assert_eq!(layer.binding().await["password"], password);
    assert_eq!(layer.get("written without an operator").await.as_deref(), Some("written without an operator"));
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_passes_and_fails_where_no_operator_answers() {
    crate::place::operator().await;
    let test = ["test", "redoubt", "--namespace", OPERATOR_NAMESPACE, "--timeout", "60s"];
    let passed = helm(&test);
    assert!(passed.contains("Succeeded"), "{passed}");
    scale_operator("0");
    let failed = std::process::Command::new("helm").args(test).output().unwrap();
    scale_operator("2");
    assert!(!failed.status.success(), "it passed without an operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_one_namespace_makes_a_layer_ready_there_and_touches_no_other() {
    let (watched, foreign) =
        (TestNamespace::create("e2e-chart-watched").await, TestNamespace::create("e2e-chart-foreign").await);
    // Its own namespace is a third one, that of its Lease and its root key.
    let own = TestNamespace::create("e2e-chart-own").await;
    // The operator of all namespaces would look after these too.
    scale_operator("0");
    let release = ["redoubt", "charts/redoubt", "--namespace", own.name.as_str()];
    let values = [
        "--values",
        "tests/e2e/values.yaml",
        "--set",
        "watchNamespace=e2e-chart-watched,rbac.watchSecrets=false",
        "--wait",
        "--timeout",
        "90s",
    ];
    helm(&[&["upgrade", "--install"], &release[..], &values[..]].concat());
    let account = "system:serviceaccount:e2e-chart-own:redoubt-operator";
    let may = |namespace: &str, verb: &str, kind: &str| {
        let arguments = ["auth", "can-i", verb, kind, "--as", account, "--namespace", namespace];
        std::process::Command::new("kubectl").args(arguments).output().unwrap().status.success()
    };
    assert!(may("e2e-chart-watched", "create", "statefulsets.apps"));
    for (namespace, verb, kind) in [
        ("e2e-chart-foreign", "get", "datalayers.redoubt.dev"),
        ("e2e-chart-foreign", "get", "secrets"),
        ("e2e-chart-watched", "list", "secrets"),
        ("e2e-chart-own", "list", "secrets"),
    ] {
        assert!(!may(namespace, verb, kind), "it may {verb} {kind} in {namespace}");
    }
    let other = foreign.layer("web", json!({})).await;
    let layer = watched.layer("web", json!({})).await;
    layer.ready().await;
    assert!(layer.set("kept").await);
    assert!(other.object().await.status.is_none() && other.pods().await.is_empty());
    helm(&["uninstall", "redoubt", "--namespace", &own.name, "--wait"]);
    kubectl(&["-n", &foreign.name, "delete", "datalayer", "web"]);
    // The operator of all namespaces has another root key, and must not meet this layer.
    kubectl(&["-n", &watched.name, "delete", "datalayer", "web", "--wait=true"]);
    scale_operator("2");
    for namespace in [watched, foreign, own] {
        namespace.delete().await;
    }
}
