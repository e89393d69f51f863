//! Claims about the operator against a real API server without nodes: its objects, admission, watches and collection of garbage are
//! Kubernetes' own, and pods are processes on loopback that [`kubelet`] runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs, clippy::missing_panics_doc)]

mod administrator;
mod admission;
mod api_faults;
mod at_rest;
mod audit;
#[path = "../support/bad_caches.rs"]
mod bad_caches;
#[path = "../support/bad_layers.rs"]
mod bad_layers;
#[path = "../support/bad_libraries.rs"]
mod bad_libraries;
#[path = "../support/bad_policies.rs"]
mod bad_policies;
#[allow(dead_code)]
#[path = "../support/bad_stores.rs"]
mod bad_stores;
mod caches;
mod changes;
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
#[allow(dead_code)]
#[path = "../support/kubernetes/disturbances.rs"]
mod disturbances;
mod editable;
#[allow(dead_code)]
#[path = "../support/engine_process.rs"]
mod engine_process;
mod every_kind;
mod failures;
#[allow(dead_code)]
mod faults;
mod functions;
mod held;
#[allow(dead_code)]
#[path = "../support/history.rs"]
mod history;
mod invalid;
mod kubelet;
#[allow(dead_code)]
#[path = "../support/kubernetes/layer.rs"]
mod layer;
mod limit_exports;
mod limits;
mod metrics;
mod objects;
#[allow(dead_code)]
mod operator;
mod pages;
mod place;
mod plane;
mod pod;
#[path = "../support/kubernetes/polling.rs"]
mod polling;
mod promote;
mod refusals;
mod scale;
mod services;
mod session_access;
mod sessions;
#[allow(dead_code)]
#[path = "../support/kubernetes/store.rs"]
mod store;
mod tenants;
#[allow(dead_code, unused_imports)]
#[path = "../support/kubernetes/test_namespace.rs"]
mod test_namespace;
#[path = "../support/kubernetes/truth.rs"]
mod truth;
mod turns;
mod volumes;
#[allow(dead_code)]
#[path = "../support/witness.rs"]
mod witness;

pub use place::client;
use polling::eventually;
