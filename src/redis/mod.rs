//! Speaking to Redis, Valkey and Sentinel: connections, typed commands, reply parsers.
//!
//! Knows the protocol and the servers' words; answers in `model` types. Must never see Kubernetes, `api` or `plan`.

pub mod administrator;
pub mod cluster;
pub mod cluster_nodes;
pub mod connection;
pub mod counters;
pub mod error;
pub(crate) mod first_primary;
pub mod functions;
pub mod hello;
pub mod info;
pub(crate) mod info_window;
pub(crate) mod keys;
pub(crate) mod prefix_jobs;
pub mod probe;
mod reply;
mod reply_size;
pub mod rights;
pub mod sentinel;
pub mod server;
pub mod switchover;
pub mod use_access;
pub mod user_forms;
pub mod users;

pub use connection::{Connection, Endpoint, Secret};
pub use error::{Class, Error, Result};
