//! Many layers at once: each is looked at in its turn.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use redoubt::api::data_layer::DataLayer;
use serde_json::json;

use crate::test_namespace::{SOON, TestNamespace, eventually};

const LAYERS: usize = 40;
/// For each to be looked at once with all others under way, on two processors that others use too.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// None of them ever gets a pod, so each is tried again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_each_of_many_layers_that_fail_is_seen_in_its_turn() {
    let namespace = TestNamespace::create("nl-turns").await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/statefulsets.apps": "0"}}});
    let quotas: Api<ResourceQuota> = Api::namespaced(namespace.client.clone(), &namespace.name);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    eventually("the quota is in force", SOON, async || {
        let quota = quotas.get("none").await.unwrap();
        quota.status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let names = (0..LAYERS).map(|number| format!("layer{number}"));
    let spec = |cpu: &str| json!({"mode": "Standalone", "cpu": cpu});
    let made = futures::stream::iter(names).map(async |name| namespace.layer(&name, spec("20m")).await);
    let layers: Vec<_> = made.buffered(8).collect().await;
    let all: Api<DataLayer> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let unseen = async || {
        let list = all.list(&ListParams::default()).await.unwrap().items;
        let is_unseen = |layer: &&DataLayer| {
            layer.status.as_ref().and_then(|status| status.observed_generation) != layer.metadata.generation
        };
        list.iter().filter(is_unseen).map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    eventually("each was seen", SOON, async || unseen().await.is_empty()).await;
    eventually("each is refused", SOON, async || {
        let degraded = join_all(layers.iter().map(|layer| layer.condition("Degraded"))).await;
        degraded
            .into_iter()
            .flatten()
            .all(|(status, _, message)| status == "True" && message.contains("exceeded quota"))
    })
    .await;
    for cpu in ["21m", "22m"] {
        join_all(layers.iter().map(|layer| layer.change(spec(cpu)))).await;
        let edited = Instant::now();
        let took = eventually("each edit was seen", SEEN_WITHIN, async || unseen().await.is_empty()).await;
        println!("{LAYERS} edits were seen within {took:?} of {:?}", edited.elapsed());
    }
    namespace.delete().await;
}
