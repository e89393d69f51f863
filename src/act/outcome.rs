//! How a step or the apply of an object ended, and the errors on the way.

use crate::failure::{Class, Request};
use crate::telemetry::Chain;

/// Why a step or an object was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the Kubernetes API failed.
    #[error(transparent)]
    Request(#[from] Request),
    /// A server did not do what it was told.
    #[error(transparent)]
    Server(#[from] crate::redis::Error),
    /// The primary was not moved.
    #[error("cannot move the primary")]
    Switchover(#[from] crate::redis::switchover::Error),
    /// A function library is not on its server.
    #[error(transparent)]
    Library(#[from] crate::dataplane::Error),
    /// An object of our name exists and is not ours.
    #[error("{object} exists and {whose}")]
    NameTaken {
        /// `KIND NAMESPACE/NAME`, as messages name it.
        object: String,
        /// Whose it is, as the end of a sentence.
        whose: &'static str,
    },
    /// An object of ours could not be written as JSON.
    #[error("cannot write {object} as JSON")]
    Serialise {
        /// `KIND NAMESPACE/NAME`, as messages name it.
        object: String,
        /// What serde could not write.
        source: serde_json::Error,
    },
}

impl Error {
    /// What to make of it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Request(error) => error.class(),
            Self::Server(_) | Self::Switchover(_) | Self::Library(_) => Class::Transient,
            Self::NameTaken { .. } => Class::Forbidden,
            Self::Serialise { .. } => Class::Bug,
        }
    }
}

/// How a step ended. The next pass decides what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Done, and seen to be done where that can be seen at once.
    Done,
    /// Its precondition no longer held, or a thing that it needs is missing; nothing was changed.
    Dropped(String),
    /// The server will not do it; trying again changes nothing until something else changes.
    Refused(String),
    /// An object of our name belongs to another.
    NameTaken(String),
    /// The step was tried and failed; its effect may have happened.
    Failed {
        /// When the step may be tried again.
        class: Class,
        /// The error with its causes, without secrets.
        why: String,
    },
}

impl StepOutcome {
    /// How a step ended that met this error.
    pub(crate) fn of(error: &Error) -> Self {
        if let Error::NameTaken { .. } = error {
            return Self::NameTaken(Chain(error).to_string());
        }
        match error.class() {
            Class::Conflict => Self::Dropped(Chain(error).to_string()),
            class => Self::Failed { class, why: Chain(error).to_string() },
        }
    }

    /// Whether the step was done.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The outcome as a metric label.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dropped(_) => "dropped",
            Self::Refused(_) => "refused",
            Self::NameTaken(_) => "name_taken",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why it was not done; empty if it was.
    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::Done => "",
            Self::Dropped(why) | Self::Refused(why) | Self::NameTaken(why) | Self::Failed { why, .. } => why,
        }
    }
}
