//! The custom resources, their conditions, and every name that Redoubt gives to a Kubernetes object.
//!
//! Knows types only. Must never see a client, Redis or the planner.
#![allow(unreachable_pub, reason = "the derive of schemas repeats a struct inside of a function, with its visibility")]

pub mod cache_namespace;
pub(crate) mod config_rules;
pub mod data_layer;
pub mod data_layer_status;
pub mod function_library;
pub(crate) mod guarded_rules;
pub(crate) mod metadata_rules;
pub(crate) mod name_rules;
pub mod names;
pub(crate) mod quantity_rules;
pub mod rate_limit_policy;
pub mod session_store;
mod use_fields;
pub(crate) mod use_rules;
pub mod use_status;
pub mod uses;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use self::guarded_rules::definition;
use crate::model::UseKind;

/// All custom resource definitions.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let of_use = |kind| match kind {
        UseKind::SessionStore => definition::<session_store::SessionStore>(),
        UseKind::RateLimitPolicy => definition::<rate_limit_policy::RateLimitPolicy>(),
        UseKind::CacheNamespace => definition::<cache_namespace::CacheNamespace>(),
        UseKind::FunctionLibrary => definition::<function_library::FunctionLibrary>(),
    };
    std::iter::once(definition::<data_layer::DataLayer>()).chain(UseKind::ALL.map(of_use)).collect()
}
