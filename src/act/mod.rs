//! Carries out steps, each under its precondition. Decides nothing, repeats nothing, waits for nothing: what fails is an
//! outcome, and the loop is the retry.
//!
//! Knows clients and the plan's steps. Must never see `observe` or `validate`.

pub mod fingerprint;
pub mod kube;
pub mod secrets;

use crate::failure::{Class, Request};

/// Why a step or an object was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the Kubernetes API failed.
    #[error(transparent)]
    Request(#[from] Request),
    /// An object of our name exists and is not ours.
    #[error("{object} exists and does not belong to this layer")]
    NameTaken {
        /// Kind, namespace and name.
        object: String,
    },
    /// An object of ours could not be written as JSON.
    #[error("cannot write {object} as JSON")]
    Serialise {
        /// Kind, namespace and name.
        object: String,
        /// Why not.
        source: serde_json::Error,
    },
}

impl Error {
    /// What to make of it.
    pub fn class(&self) -> Class {
        match self {
            Self::Request(error) => error.class(),
            Self::NameTaken { .. } => Class::Forbidden,
            Self::Serialise { .. } => Class::Bug,
        }
    }
}
