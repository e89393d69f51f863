//! Our definitions in a cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt as _};

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
