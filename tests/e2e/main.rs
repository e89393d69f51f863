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
mod demo;
mod failures;
mod figures;
#[allow(dead_code)]
#[path = "../support/history.rs"]
mod history;
mod invalid;
mod layer;
mod objects;
mod operator;
mod pods;
mod session_access;
mod sessions;
mod stage;
mod store;
mod volumes;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt as _};
use tokio::sync::OnceCell;

/// A client of the cluster that KUBECONFIG names, with our definitions in place.
pub async fn client() -> Client {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let client = Client::try_default().await.expect("a cluster: make cluster-up, and KUBECONFIG set");
    DEFINED.get_or_init(async || define(&client).await).await;
    client
}

/// Puts our definitions in place, as they are.
pub async fn define(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in redoubt::api::custom_resource_definitions() {
        let name = definition.name_any();
        let parameters = PatchParams::apply("redoubt-e2e").force();
        definitions.patch(&name, &parameters, &Patch::Apply(&definition)).await.unwrap();
        await_condition(definitions.clone(), &name, conditions::is_crd_established()).await.unwrap();
    }
}
