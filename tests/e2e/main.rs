//! Claims that only a real kubelet, network, disk, scheduler or eviction shows. `gate` is what each change must pass; the other
//! modules are areas.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs, clippy::missing_panics_doc)]

mod addresses;
#[path = "../support/cache_copies.rs"]
mod cache_copies;
mod caches;
mod changes;
mod chart;
#[allow(dead_code)]
#[path = "../support/kubernetes/children.rs"]
mod children;
#[allow(dead_code)]
#[path = "../support/kubernetes/cluster_layer.rs"]
mod cluster_layer;
mod clusters;
mod commands;
mod creation;
#[path = "../support/kubernetes/definitions.rs"]
mod definitions;
mod demo;
#[allow(dead_code)]
#[path = "../support/kubernetes/disturbances.rs"]
mod disturbances;
mod failures;
mod figures;
mod functions;
mod gate;
#[allow(dead_code)]
#[path = "../support/history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../support/kubernetes/layer.rs"]
mod layer;
mod limits;
mod operator;
mod place;
#[path = "../support/kubernetes/polling.rs"]
mod polling;
mod sessions;
#[allow(dead_code)]
#[path = "../support/kubernetes/store.rs"]
mod store;
#[allow(dead_code, unused_imports)]
#[path = "../support/kubernetes/test_namespace.rs"]
mod test_namespace;
#[path = "../support/kubernetes/truth.rs"]
mod truth;
mod volumes;
#[allow(dead_code)]
#[path = "../support/witness.rs"]
mod witness;

use kube::Client;
use tokio::sync::OnceCell;

/// A client of the cluster that KUBECONFIG names, with our definitions in place.
pub async fn client() -> Client {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let client = Client::try_default().await.expect("a cluster: make cluster-up, and KUBECONFIG set");
    DEFINED.get_or_init(async || definitions::define(&client).await).await;
    client
}
