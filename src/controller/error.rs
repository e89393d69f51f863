//! Why a pass could not be made to its end.

use crate::act;
use crate::failure::{Class, Request};

/// Why a pass could not be made to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A request that the whole pass depends on.
    #[error(transparent)]
    Request(#[from] Request),
    /// An object that the whole pass depends on.
    #[error(transparent)]
    Act(act::Error),
    /// The watches are gone: the process is stopping.
    #[error("the watches have ended")]
    WatchesEnded,
}

impl Error {
    /// What to make of it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Request(error) => error.class(),
            Self::Act(error) => error.class(),
            Self::WatchesEnded => Class::Transient,
        }
    }
}
