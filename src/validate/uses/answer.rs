//! What a layer answers one use: its place, or why it has none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ValidatedUse;
use crate::model::uses::Advice;

/// A store that a layer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedUse {
    /// The store; its policy has the prefix that it was admitted with.
    pub accepted: ValidatedUse,
    /// Since when it has its place; a use without keys has none, and is here since it was made.
    pub since: Time,
    /// What it should know of its layer.
    pub advice: Option<Advice>,
}

/// Why a store is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word; part of the API.
    pub reason: &'static str,
    /// A sentence that names the fact and what would change it.
    pub message: String,
}
