//! The development cluster, with the operator installed by its chart.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::commands::{cluster, helm, kubectl};
use crate::test_namespace::{ENDED_LABEL, LEFT_LABEL};

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "redoubt-system";

/// Whether what a claim made ends with it, without a request to the API server.
pub const ENDS_WITH_THE_CLAIM: bool = false;

/// The operator's service for a claim: here one operator serves all, and outlives the claim.
pub struct Service(());

impl Service {
    /// Keeps operator and pods, which they are here anyway.
    pub fn leave(&mut self) {
        self.0 = ();
    }
}

/// The operator for a claim in this namespace.
pub async fn operator_of(_namespace: &str) -> Service {
    operator().await;
    Service(())
}

/// The operator of a namespace that has one already.
pub async fn operator_in(namespace: &str) -> Service {
    operator_of(namespace).await
}

/// Two replicas of the operator, of the image that is loaded now.
pub async fn operator() {
    use tokio::sync::OnceCell;
    static RUNNING: OnceCell<()> = OnceCell::const_new();
    RUNNING
        .get_or_init(async || {
            let namespaces: Api<Namespace> = Api::all(crate::client().await);
            let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": OPERATOR_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            }});
            let parameters = PatchParams::apply("redoubt-e2e").force();
            namespaces.patch(OPERATOR_NAMESPACE, &parameters, &Patch::Apply(&space)).await.unwrap();
            // What an earlier process left runs an agent that may be another by now.
            for label in [LEFT_LABEL, ENDED_LABEL] {
                for space in namespaces.list(&ListParams::default().labels(label)).await.unwrap() {
                    namespaces.delete(&space.name_any(), &DeleteParams::default()).await.unwrap();
                }
            }
            install_operator(&[]);
        })
        .await;
}

/// Installs or upgrades the operator by its chart and waits until it runs. The image's name is always the same, so pods are made
/// anew for each run of the tests.
pub fn install_operator(further: &[&str]) {
    let run = format!("podAnnotations.run={}", std::process::id());
    let mut arguments = vec!["upgrade", "--install", "redoubt", "charts/redoubt", "--namespace", OPERATOR_NAMESPACE];
    // A run that was cut short may have left its own number of replicas: `kubectl scale` owns it then.
    arguments.extend(["--values", "tests/e2e/values.yaml", "--set-string", &run, "--server-side=true"]);
    arguments.extend(["--force-conflicts", "--wait", "--timeout", "90s"]);
    arguments.extend(further);
    helm(&arguments);
    operator_is_there();
}

/// Waits until both replicas of the operator are there.
pub fn operator_is_there() {
    kubectl(&["-n", "redoubt-system", "rollout", "status", "deployment/redoubt-operator", "--timeout=90s"]);
}

/// Ends every replica of the operator (`0`), or brings them back (`2`).
pub fn scale_operator(replicas: &str) {
    let replicas = format!("--replicas={replicas}");
    kubectl(&["-n", "redoubt-system", "scale", "deployment/redoubt-operator", &replicas]);
    if replicas.ends_with('0') {
        let selector = "app.kubernetes.io/name=redoubt-operator";
        kubectl(&["-n", "redoubt-system", "wait", "pod", "-l", selector, "--for=delete", "--timeout=60s"]);
    } else {
        operator_is_there();
    }
}

/// How many passes the operator made: its replicas count for themselves, so nothing is told here.
pub const fn passes(_namespace: &str) -> String {
    String::new()
}

/// What a pod has logged so far; empty where it does not run.
pub fn log(namespace: &str, pod: &str) -> String {
    let output = std::process::Command::new("kubectl").args(["-n", namespace, "logs", pod]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Sends a signal to a process of a pod.
pub fn signal(namespace: &str, pod: &str, signal: &str, process: &str) {
    cluster(&["signal", namespace, pod, signal, process]);
}
