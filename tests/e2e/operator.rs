//! The operator itself: who leads it, and what follows where its leader is away.

use std::time::Instant;

use crate::commands::{CutOff, kubectl};
use crate::disturbances::{FOLLOWED, rounds};
use crate::place::OPERATOR_NAMESPACE;
use crate::test_namespace::{SOON, TestNamespace, eventually};

fn leader() -> String {
    let holder = "jsonpath={.spec.holderIdentity}";
    let identity = kubectl(&["-n", OPERATOR_NAMESPACE, "get", "lease", "redoubt-operator", "-o", holder]);
    identity.split('_').next().unwrap_or_default().to_owned()
}

/// Whether a replica of the operator says that it leads.
fn leads(pod: &str) -> bool {
    let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    kubectl(&["get", "--raw", &path]).lines().any(|line| line == "redoubt_leader 1")
}

/// Nobody leads the operator for as long as this lives: its Lease is held by one who does not exist.
struct NobodyLeads;

impl NobodyLeads {
    fn begin() -> Self {
        Self::lease(r#"{"spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 3600}}"#);
        Self
    }

    fn lease(patch: &str) {
        kubectl(&["-n", OPERATOR_NAMESPACE, "patch", "lease", "redoubt-operator", "--type=merge", "-p", patch]);
    }
}

impl Drop for NobodyLeads {
    fn drop(&mut self) {
        Self::lease(r#"{"spec": {"leaseDurationSeconds": 1}}"#);
    }
}

fn node_of(namespace: &str, pod: &str) -> String {
    kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
}

/// The Services follow the primary so many times, although nobody leads the operator.
pub async fn services_follow_without_a_leader(namespace: &str, times: usize) {
    let (namespace, layer) = TestNamespace::with_layer(namespace).await;
    let nobody = NobodyLeads::begin();
    // The leader looks at its Lease each second.
    eventually("the leader has stopped", SOON, async || {
        let operators = ["-l", "app.kubernetes.io/name=redoubt-operator", "--field-selector=status.phase=Running"];
        let named = ["-n", OPERATOR_NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
        let pods = kubectl(&[named.as_slice(), operators.as_slice()].concat());
        pods.split_whitespace().all(|pod| !leads(pod))
    })
    .await;
    for round in 0..times {
        let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
        layer.kill_engine(primary).await;
        let served_by = layer.has_a_new_primary(served).await;
        let followed = layer.services_follow(served_by, FOLLOWED).await;
        println!("nobody leads, round {round}: the Services followed {followed:?} after another served");
    }
    assert_eq!(leader(), "nobody");
    drop(nobody);
    namespace.leave(layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_although_no_operator_leads() {
    services_follow_without_a_leader("e2e-nobody-leads", rounds(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_a_primary_that_is_cut_off_together_with_the_operators_leader() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-cut-leader").await;
    let leaders_node = node_of(OPERATOR_NAMESPACE, &leader());
    for _ in 0..10 {
        let primary = layer.wait_until_in_sync().await;
        if node_of(&namespace.name, &layer.pod(primary)) == leaders_node {
            break;
        }
        let served = layer.serving().await;
        layer.delete_pod(primary).await;
        layer.has_a_new_primary(served).await;
    }
    let (primary, served) = (layer.wait_until_in_sync().await, layer.serving().await);
    assert_eq!(
        node_of(&namespace.name, &layer.pod(primary)),
        leaders_node,
        "ten moves, and never to the leader's node"
    );
    let (old, began) = (leader(), Instant::now());
    let network = CutOff::begin(&leaders_node);
    let served_by = layer.has_a_new_primary(served).await;
    let moved = began.elapsed();
    let after = layer.services_follow(served_by, FOLLOWED).await;
    println!("primary and leader cut off: another is primary after {moved:?}, the Services followed {after:?} later");
    eventually("another replica of the operator leads", SOON, async || leader() != old).await;
    network.reconnect();
    namespace.leave(layer).await;
    crate::place::operator_is_there();
}
