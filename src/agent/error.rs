//! Why an agent ends without being told to.

use super::{ConfigError, engine};
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
    #[error("cannot {verb} {path}")]
    File {
        /// What could not be done: an infinitive.
        verb: &'static str,
        /// Path of the file in the pod.
        path: String,
        /// What the kernel answered.
        #[source]
        source: std::io::Error,
    },
    /// What the node has cannot be kept aside, so nothing may overwrite it.
    #[error("cannot keep the node's data aside: {0}")]
    NoRoom(String),
    /// The HTTP port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// `host:port`.
        address: String,
        /// What the kernel answered.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Result of an agent's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its causes, for one line of a log.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}
