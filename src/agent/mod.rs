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
pub mod data_node;
mod disk;
pub mod dissent;
pub mod durable;
mod endless;
pub mod engine;
mod epochs;
pub mod exporter;
pub mod failover;
mod freshest;
mod functions;
pub mod handover;
pub mod health;
pub mod herald;
pub mod hit_ratio;
pub mod http;
pub mod install;
mod introduction;
mod joining;
mod late_election;
pub mod lineage_file;
mod misled;
pub mod peers;
mod prefix_jobs;
pub mod redis_conf;
mod rivals;
pub mod sentinel_conf;
pub mod sentinel_node;
mod silence;
mod spin;
mod standing;
pub mod state;
mod stray;
mod uncounted;
mod unknown_replicas;
mod unloadable;
mod verdict;
pub mod watch;
mod writers;

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub use config::{Environment, Error as ConfigError};

use crate::model::NodeKind;
use crate::telemetry::Chain;

/// Why an agent ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine cannot be started, or ends at once whenever it is.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A file of the node cannot be read or written.
    #[error("{doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// What the node has cannot be kept aside, so nothing may overwrite it.
    #[error("keeping the node's data aside: {0}")]
    NoRoom(String),
    /// The HTTP port cannot be opened.
    #[error("listening on {address}")]
    Listen {
        /// `host:port`.
        address: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("receiving signals")]
    Signals(#[source] std::io::Error),
}

/// Result of an agent's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its causes, for one line of a log.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

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

/// SIGTERM (Kubernetes) or SIGINT (a person).
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
        })
    }

    /// Waits until the node is told to stop.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
