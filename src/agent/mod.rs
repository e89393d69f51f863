//! Process 1 of every pod: decides how to boot, starts and watches the server, answers probes, peers and Prometheus, and
//! hands over before it stops.
//!
//! Knows one node. Takes no commands from the network, has no Kubernetes credentials, and must never see the operator.

mod activity;
mod agent_password;
mod ancestry;
mod announcement;
mod append_files;
pub(crate) mod aside;
mod audit;
pub(crate) mod boot;
mod busy_script;
mod chosen;
mod client_memory;
pub mod cluster;
pub mod config;
pub(crate) mod counters;
mod credentials;
mod damaged_files;
mod data_file;
pub(crate) mod data_node;
pub(crate) mod disagreement;
mod disk;
pub(crate) mod durable;
pub(crate) mod engine;
mod epochs;
mod error;
mod error_stats;
pub mod exporter;
pub(crate) mod failover;
mod file_check;
mod file_links;
mod file_offset;
mod freshest;
pub mod functions;
pub(crate) mod handover;
pub(crate) mod health;
mod held;
pub(crate) mod hit_ratio;
pub(crate) mod http;
pub(crate) mod install;
mod introduction;
mod late_election;
pub mod lineage_file;
mod new_connections;
mod nomination;
mod numbers;
mod own_room;
pub mod peers;
mod port;
mod prefix_jobs;
pub mod promotion;
mod rdb_head;
pub mod redis_conf;
mod removal;
mod replica_state;
mod rivals;
mod sampler;
mod script_cache;
pub mod sentinel_conf;
pub(crate) mod sentinel_node;
mod shared_health;
mod spin;
pub(crate) mod state;
mod stderr_tail;
mod stop;
mod strangers;
mod stray;
mod unknown_replicas;
mod unresponsive;
mod volume_tasks;
mod wall_clock;
pub(crate) mod watch;
mod writers;
mod wrong_primary;

use std::sync::Arc;

pub use config::Environment;
pub(crate) use config::Error as ConfigError;
use error::chain;
pub use error::{Error, Result};
pub(crate) use stop::StopSignal;

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
