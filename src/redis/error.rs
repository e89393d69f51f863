//! What can go wrong with a command, by what it means to the caller.

use std::fmt;

use ::redis::{ErrorKind, RedisError};

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A command that failed. The text names command and address, never an argument: arguments may be secrets.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Error of the client or of the server.
        #[source]
        source: Cause,
    },
    /// The server has as many connections as it may have (`maxclients`), and ended this one before the login.
    #[error("{address} has no connection left (maxclients)")]
    Full {
        /// `host:port`.
        address: String,
    },
    /// The server refused the command, or did not answer it in time.
    #[error("cannot run {command} on {address}")]
    Command {
        /// Name of the command.
        command: String,
        /// `host:port`.
        address: String,
        /// Error of the client or of the server.
        #[source]
        source: Cause,
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

/// What the server or the system said. Its text is free of secrets: servers quote arguments in some errors.
#[derive(Clone)]
pub struct Cause(RedisError);

impl From<RedisError> for Cause {
    fn from(error: RedisError) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0.code() {
            Some(code) => format!("{code} {}", self.0.detail().unwrap_or_default()),
            None => self.0.to_string(),
        };
        formatter.write_str(without_secrets(&words).trim_end())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Cause {}

/// Cuts the list of arguments that `unknown command …` quotes, and masks what could be a password of ours (48 hexadecimal
/// characters) or a password's digest (64: `Error in ACL SETUSER modifier`). Run and replication ids have 40 and stay.
fn without_secrets(words: &str) -> String {
    let words = words.split_once(", with args beginning with").map_or(words, |(before, _)| before);
    let mut clean = String::with_capacity(words.len());
    for piece in words.split_inclusive(|character: char| !character.is_ascii_hexdigit()) {
        let run = piece.trim_end_matches(|character: char| !character.is_ascii_hexdigit());
        clean.push_str(if run.len() > 40 { "***" } else { run });
        clean.push_str(&piece[run.len()..]);
    }
    clean
}

/// What an error says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No server there, or no answer in time.
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
    /// Alive, without a connection left.
    Full,
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
            Self::Full { .. } => Class::Full,
            Self::Reply { .. } => Class::Other,
        }
    }

    /// Whether the connection was cut under the command: the server may be well, and another connection tells. Silence is none.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::Command { source, .. } => source.0.is_connection_dropped() && !source.0.is_timeout(),
            Self::Connect { .. } | Self::Full { .. } | Self::Reply { .. } => false,
        }
    }

    /// The server's own error text, if it gave one (`NOGOODSLAVE No suitable replica to promote`).
    pub fn server_text(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } | Self::Command { source, .. } => source.0.code().map(|_| source.to_string()),
            Self::Full { .. } | Self::Reply { .. } => None,
        }
    }
}

fn class_of(Cause(error): &Cause) -> Class {
    match error.code() {
        Some("LOADING") => Class::Loading,
        Some("BUSY") => Class::Busy,
        Some("MISCONF") => Class::CannotPersist,
        Some("NOREPLICAS") => Class::TooFewReplicas,
        Some("OOM") => Class::OutOfMemory,
        Some("READONLY") => Class::ReadOnly,
        Some("MASTERDOWN") => Class::PrimaryDown,
        Some("NOPERM" | "NOAUTH" | "WRONGPASS") => Class::Denied,
        Some(_) => Class::Other,
        None => match error.kind() {
            ErrorKind::AuthenticationFailed => Class::Denied,
            // The server answered, but not in the form that we asked for.
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse | ErrorKind::InvalidClientConfig => Class::Other,
            _ => Class::Unreachable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_quote_is_cut_or_masked() {
        let (digest, run_id) = ("a".repeat(64), "b".repeat(40));
        assert_eq!(
            without_secrets(&format!("ERR Error in ACL SETUSER modifier '#{digest}': Syntax error")),
            "ERR Error in ACL SETUSER modifier '#***': Syntax error"
        );
        assert_eq!(
            without_secrets("ERR unknown command 'CONFIG', with args beginning with: 'SET' 'masterauth' 'hunter2'"),
            "ERR unknown command 'CONFIG'"
        );
        assert_eq!(without_secrets(&run_id), run_id);
        assert_eq!(without_secrets("é – ERR ünïcode"), "é – ERR ünïcode");
    }
}
