//! Claims about rate limits: a layer that keeps nothing, on real kubelets.

use std::process::Command;

use redis::Value;
use redoubt::api::rate_limit_policy::RateLimitPolicy;
use serde_json::json;

use crate::commands::kubectl;
use crate::layer::Layer;
use crate::place::{log, operator_is_there, scale_operator};
use crate::polling::eventually;
use crate::store::{Store, call, run};
use crate::test_namespace::{SOON, TestNamespace, engine};

/// No replica of the operator runs for as long as this lives: also a claim that fails leaves it to the next one.
struct OperatorIsAway;

impl OperatorIsAway {
    fn begin() -> Self {
        scale_operator("0");
        Self
    }
}

impl Drop for OperatorIsAway {
    fn drop(&mut self) {
        let back = ["-n", "redoubt-system", "scale", "deployment/redoubt-operator", "--replicas=2"];
        let _ = Command::new("kubectl").args(back).status();
    }
}

/// Ends all pods of a layer, and starts others when none is left: no agent that was there has anything to tell those that come.
async fn all_pods_are_replaced(namespace: &TestNamespace, layer: &Layer) {
    // Each node has a StatefulSet of its own.
    let sets = format!("redoubt.dev/layer={}", layer.identity.name);
    kubectl(&["-n", &namespace.name, "scale", "statefulset", "-l", &sets, "--replicas=0"]);
    eventually("no pod is left", SOON, async || layer.pod_uids().await.is_empty()).await;
    kubectl(&["-n", &namespace.name, "scale", "statefulset", "-l", &sets, "--replicas=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_decided_after_all_pods_were_deleted_while_no_operator_is_there() {
    let namespace = TestNamespace::create("e2e-limits-alone").await;
    let spec = json!({
        "limits": [{"name": "minute", "algorithm": "FixedWindow", "align": "FirstHit", "quota": 20, "window": "10m"}],
        "layer": {"dedicated": {"mode": "Sentinel", "cpu": "20m", "engine": {"image": engine(), "pullPolicy": "Never"}}},
    });
    let policy: Store<RateLimitPolicy> = Store::make(&namespace, "api", spec).await;
    policy.ready().await;
    let layer = policy.layer().await;
    let ask = async || -> Option<i64> {
        let mut connection = policy.connect().await?;
        match run::<Vec<Value>>(&mut connection, call("redoubt_limit", "api:{ada}", &[])).await {
            Ok(reply) => redis::from_redis_value(reply[2].clone()).ok(),
            Err(error) => {
                assert!(!error.to_string().contains("Function not found"), "{error}");
                None
            }
        }
    };
    for left in (0..20).rev() {
        assert_eq!(ask().await, Some(left));
    }
    let away = OperatorIsAway::begin();
    all_pods_are_replaced(&namespace, &layer).await;
    let mut left = None;
    let took = eventually("a call is decided", SOON, async || {
        left = ask().await;
        left.is_some()
    })
    .await;
    println!("a call is decided {took:?} after all pods were replaced");
    // A call whose answer was lost may have been counted.
    assert!(left.is_some_and(|left| left >= 10), "a layer that keeps nothing forgets what was counted: {left:?}");
    // The kubelet puts the Secret's file into a new pod; nothing else of the layer is left. It gives no log of a pod that it has not
    // reported as running yet, and a call may be decided before that.
    let pods: Vec<String> = (0..3).map(|ordinal| format!("{}-redis-{ordinal}-0", layer.identity.name)).collect();
    eventually("a node says that it started with the functions of the Secret", SOON, async || {
        let said = |text: String| text.contains("starts with its functions") && text.contains("the Secret");
        pods.iter().any(|pod| said(log(&namespace.name, pod)))
    })
    .await;
    drop(away);
    operator_is_there();
    policy.api().delete(&policy.name, &kube::api::DeleteParams::default()).await.unwrap();
    namespace.delete().await;
}
