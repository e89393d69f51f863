//! Redis and the layer in plain Rust: what every other module speaks about.
//!
//! Knows: identities, roles, offsets, what was observed of a node, what is desired of it, and the rules over these that
//! need no input but their arguments. Must never see Kubernetes types, a Redis client, a clock or randomness.

pub mod audit;
pub mod boot;
pub mod cache_policy;
pub mod cluster;
mod columns;
pub mod counters;
pub mod desired;
pub mod directives;
pub mod engine;
pub mod function_library;
pub mod identity;
pub mod limit_policy;
pub mod lineage;
pub mod memory;
pub mod node_config;
pub mod observed;
pub mod position;
pub mod prefix_job;
pub mod purpose;
pub mod roles;
pub mod session_policy;
pub mod settings;
pub mod slots;
pub mod topology;
pub mod uses;

pub use identity::{
    Address, AdministratorAccess, LayerIdentity, Mode, NodeId, NodeKind, Offset, PodRole, Purpose, ReplicationId, Role,
};
pub use session_policy::{OnExceed, SessionPolicy};
pub use uses::{Policy, UseKind};

/// A time in whole milliseconds, as directives of Redis and our documents have it.
pub(crate) fn milliseconds(time: std::time::Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
