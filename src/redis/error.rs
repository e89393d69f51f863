//! What can go wrong with a command, by what it means to the caller.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A command that failed. The text names command and address, never an argument: arguments may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be made.
    #[error("connecting to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Cause.
        #[source]
        source: RedisError,
    },
    /// The server refused the command, or did not answer it in time.
    #[error("{command} on {address}")]
    Command {
        /// Name of the command.
        command: String,
        /// `host:port`.
        address: String,
        /// Cause.
        #[source]
        source: RedisError,
    },
    /// The server answered something that the command never answers.
    #[error("{command} on {address} answered {problem}")]
    Reply {
        /// Name of the command.
        command: String,
        /// `host:port`.
        address: String,
        /// What is wrong with the answer.
        problem: String,
    },
}

/// What an error says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nobody there, or no answer in time.
    Unreachable,
    /// Alive, reading its dataset (`LOADING`).
    Loading,
    /// Alive, running a script (`BUSY`).
    Busy,
    /// Alive, cannot persist and refuses writes (`MISCONF`).
    CannotPersist,
    /// Alive, too few replicas for a write (`NOREPLICAS`).
    TooFewReplicas,
    /// Alive, memory is full (`OOM`).
    OutOfMemory,
    /// Alive, a replica that takes no writes (`READONLY`).
    ReadOnly,
    /// Alive, a replica without its primary (`MASTERDOWN`).
    PrimaryDown,
    /// Alive, the user may not do that, or the password is wrong.
    Denied,
    /// Alive, anything else.
    Other,
}

impl Class {
    /// Whether a server that answers so is alive: all but silence.
    pub fn is_alive(self) -> bool {
        self != Self::Unreachable
    }
}

impl Error {
    /// What the error says of the server.
    pub fn class(&self) -> Class {
        match self {
            Self::Connect { source, .. } | Self::Command { source, .. } => class_of(source),
            Self::Reply { .. } => Class::Other,
        }
    }

    /// The server's own error text, if it gave one (`NOGOODSLAVE No suitable replica to promote`).
    pub fn server_text(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } | Self::Command { source, .. } => {
                source.code().map(|code| format!("{code} {}", source.detail().unwrap_or_default()))
            }
            Self::Reply { .. } => None,
        }
    }
}

fn class_of(error: &RedisError) -> Class {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Class::Loading,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Class::ReadOnly,
        ErrorKind::Server(ServerErrorKind::MasterDown) => Class::PrimaryDown,
        ErrorKind::AuthenticationFailed => Class::Denied,
        _ => match error.code() {
            Some("LOADING") => Class::Loading,
            Some("BUSY") => Class::Busy,
            Some("MISCONF") => Class::CannotPersist,
            Some("NOREPLICAS") => Class::TooFewReplicas,
            Some("OOM") => Class::OutOfMemory,
            Some("NOPERM" | "NOAUTH" | "WRONGPASS") => Class::Denied,
            Some(_) => Class::Other,
            None => Class::Unreachable,
        },
    }
}
