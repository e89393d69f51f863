//! Claims about function libraries: what a user loaded is called after pods of real kubelets are gone.

use redoubt::redis::{Connection, server};

use crate::commands::kubectl;
use crate::disturbances::delete_all_pods;
use crate::layer::Layer;
use crate::polling::eventually;
use crate::test_namespace::{SOON, TestNamespace};

async fn connect(layer: &Layer) -> Option<Connection> {
    let primary = layer.primary().await?;
    Connection::open(&layer.endpoints().await.remove(&primary)?).await.ok()
}

/// What `FCALL shop_add_to_cart` answers.
async fn add(connection: &Connection, count: i64) -> Option<i64> {
    let call = redis::cmd("FCALL").arg("shop_add_to_cart").arg(1).arg("cart:ada").arg("tea").arg(count).clone();
    connection.query(&call).await.ok()
}

async fn in_the_cart(layer: &Layer) -> Option<i64> {
    add(&connect(layer).await?, 0).await
}

async fn answers(layer: &Layer, after: &str, expected: i64) {
    let what = format!("the function answers after {after}");
    let took = eventually(&what, SOON, async || in_the_cart(layer).await == Some(expected)).await;
    println!("the function answers {took:.2?} after {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_a_user_is_called_after_a_failover_and_after_all_pods_were_deleted() {
    let (namespace, layer) = TestNamespace::with_layer("e2e-functions").await;
    let run = |arguments: &[&str]| kubectl(&[&["-n", &namespace.name], arguments].concat());
    // It names the layer `web`, as the namespace does.
    run(&["apply", "-f", "examples/function-library.yaml"]);
    let is_ready = || run(&["wait", "--for=condition=Ready", "--timeout=60s", "functionlibrary/cart"]);
    is_ready();
    let connection = connect(&layer).await.unwrap();
    assert_eq!(add(&connection, 2).await, Some(2));
    assert_eq!(server::wait(&connection, 2, SOON).await.unwrap(), 2, "both replicas have it");

    let old = layer.serving().await;
    layer.kill_engine(layer.primary().await.unwrap()).await;
    layer.has_a_new_primary(old).await;
    answers(&layer, "the primary was killed", 2).await;
    layer.ready().await;

    let pods = layer.pod_uids().await;
    delete_all_pods(&layer).await;
    eventually("every pod is another", SOON, async || {
        let now = layer.pod_uids().await;
        now.len() == pods.len() && now.is_disjoint(&pods)
    })
    .await;
    answers(&layer, "all pods were deleted", 2).await;
    is_ready();

    run(&["delete", "functionlibrary/cart"]);
    eventually("the function is gone", SOON, async || {
        layer.primary().await.is_some() && in_the_cart(&layer).await.is_none()
    })
    .await;
    namespace.leave(layer).await;
}
