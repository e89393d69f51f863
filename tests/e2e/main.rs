//! Claims about a real Kubernetes: what its API server refuses, and that pods which `build` describes form a layer and come
//! back by themselves, with nobody's help.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs, clippy::missing_panics_doc)]

mod addresses;
mod admission;
#[path = "../support/bad_layers.rs"]
mod bad_layers;
#[allow(dead_code)]
#[path = "../support/bad_stores.rs"]
mod bad_stores;
mod changes;
mod chart;
mod commands;
mod creation;
#[path = "../support/kubernetes/definitions.rs"]
mod definitions;
mod demo;
mod failures;
mod figures;
#[allow(dead_code)]
#[path = "../support/history.rs"]
mod history;
mod invalid;
#[path = "../support/kubernetes/layer.rs"]
mod layer;
mod objects;
mod operator;
mod place;
mod pods;
#[path = "../support/kubernetes/polling.rs"]
mod polling;
mod session_access;
mod sessions;
#[path = "../support/kubernetes/stage.rs"]
mod stage;
#[path = "../support/kubernetes/store.rs"]
mod store;
mod volumes;

use kube::Client;
use tokio::sync::OnceCell;

/// A client of the cluster that KUBECONFIG names, with our definitions in place.
pub async fn client() -> Client {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let client = Client::try_default().await.expect("a cluster: make cluster-up, and KUBECONFIG set");
    DEFINED.get_or_init(async || definitions::define(&client).await).await;
    client
}
