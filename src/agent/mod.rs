//! Process 1 of every pod: decides how to boot, starts and watches the server, answers probes, peers and Prometheus, and
//! hands over before it stops.
//!
//! Knows one node. Takes no commands from the network, has no Kubernetes credentials, and must never see the operator.

mod activity;
mod ancestry;
mod announcement;
mod append_files;
pub mod aside;
mod audit;
pub mod boot;
mod chosen;
pub mod config;
pub mod counters;
mod data_file;
pub mod data_node;
mod disk;
pub mod dissent;
pub mod durable;
mod endless;
pub mod engine;
mod epochs;
mod error;
pub mod exporter;
pub mod failover;
mod filed;
mod freshest;
pub mod functions;
pub mod handover;
pub mod health;
pub mod hit_ratio;
pub mod http;
pub mod install;
mod introduction;
mod joining;
mod last_words;
mod late_election;
pub mod lineage_file;
mod misled;
mod nomination;
mod numbers;
pub mod peers;
mod prefix_jobs;
pub mod promotion;
pub mod redis_conf;
mod removal;
mod rivals;
pub mod sentinel_conf;
pub mod sentinel_node;
mod silence;
mod spin;
mod standing;
pub mod state;
mod stop;
mod strangers;
mod stray;
mod uncounted;
mod unknown_replicas;
mod unloadable;
mod verdict;
pub mod watch;
mod writers;

use std::sync::Arc;

pub use config::{Environment, Error as ConfigError};
use error::chain;
pub use error::{Error, Result};
pub use stop::StopSignal;

use crate::model::NodeKind;

/// Runs the node until SIGTERM.
pub async fn run(environment: Environment) -> Result<()> {
    let mut stop = StopSignal::listen()?;
    let config = config::read_node_config(&environment)?;
    let state = Arc::new(state::State::new(config.clone(), &environment)?);
    http::serve(&environment, Arc::clone(&state)).await?;
    if config.node.kind == NodeKind::Data {
        tokio::spawn(audit::run(environment.clone(), Arc::clone(&state)));
    }
    match config.node.kind {
        NodeKind::Data => data_node::run(&environment, &state, &mut stop).await,
        NodeKind::Sentinel => sentinel_node::run(&environment, &state, &mut stop).await,
    }
}
