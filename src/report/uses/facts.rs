//! What the status of a use is made from.

use std::sync::Arc;

use super::super::layer_words::{LayerCause, LayerNote};
use crate::api::use_status::{
    Admission, FunctionsStatus, InvalidationStatus, LayerReference, LimitStatus, RotationStatus,
};
use crate::model::UseKind;
use crate::model::audit::{AuditReport, MemoryBudget};
use crate::model::counters::Row;
use crate::model::function_library::Functions;
use crate::model::uses::Advice;

/// What is known of an accepted use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UseFacts {
    /// Kind of the custom resource.
    pub kind: UseKind,
    /// `metadata.generation`.
    pub generation: i64,
    /// Namespace and name of its layer.
    pub layer: (String, String),
    /// Why the layer itself cannot be worked with, if so.
    pub layer_trouble: Option<String>,
    /// What keeps changes from the layer, if anything does.
    pub layer_note: Option<LayerNote>,
    /// Whether the layer has a primary beyond doubt.
    pub has_primary: bool,
    /// Whether the primary answered for a library that holds its policy.
    pub functions_loaded: bool,
    /// Digest of an earlier policy of the use, if the primary has that library, as far as is known with that policy.
    pub earlier_policy: Option<String>,
    /// The primary, as `user_missing` names it.
    pub primary: Option<String>,
    /// That library, the policy's digest and the generation that it was made from.
    pub functions: FunctionsStatus,
    /// Servers that answer and do not have the user as wanted.
    pub user_missing: Vec<String>,
    /// Servers that do not answer.
    pub silent: Vec<String>,
    /// Those among them whose pods are ready: clients reach them, and nothing is known of their users.
    pub unreached: Vec<String>,
    /// Why the layer is not Ready, in its own words; `None`: it is.
    pub layer_cause: Option<LayerCause>,
    /// What `ACL DRYRUN` judges otherwise than it should; `None`: it was not asked yet.
    pub violations: Option<Vec<String>>,
    /// Name of the binding Secret, if it is as it should be.
    pub binding: Option<String>,
    /// Name of the Secret for a rate limit service, as far as there is one.
    pub export: Option<String>,
    /// Why one of the two is not.
    pub binding_trouble: Option<String>,
    /// Whether the binding's name belongs to another.
    pub name_taken: bool,
    /// User that the binding shows.
    pub user: Option<String>,
    /// What the API server said of a change of the dedicated layer that it did not take.
    pub change_refused: Option<String>,
    /// User whose credentials are still valid next to it.
    pub previous_user: Option<String>,
    /// Which rotations of its credentials are valid.
    pub rotation: Option<RotationStatus>,
    /// The place that it has; `None`: its layer was not accepted yet.
    pub admission: Option<Admission>,
    /// What it should know of its layer.
    pub advice: Option<Advice>,
    /// What the last whole pass over the layer's keys found; `None`: nothing new is known.
    pub audit: Option<Arc<AuditReport>>,
    /// The memory that its keys may take; `None`: as much as the layer has.
    pub budget: Option<MemoryBudget>,
    /// What each of its keys begins with; empty: it has none.
    pub prefix: String,
    /// Of a rate limit policy: what its limits come to.
    pub limits: Vec<LimitStatus>,
    /// What its functions counted, by part; `None`: that is not known now.
    pub counters: Option<Vec<Row>>,
    /// Of a cache: keys that are to be removed.
    pub invalidation: Option<InvalidationStatus>,
    /// Of a function library: the functions that the primary has of it; `None`: it has none, or there is no primary to ask.
    pub function_names: Option<Functions>,
    /// Of a function library: engine and version of that primary.
    pub engine: Option<String>,
    /// Of a function library: why what is declared is not loaded.
    pub library_trouble: Option<LibraryTrouble>,
}

impl UseFacts {
    pub(super) fn layer_reference(&self) -> LayerReference {
        let (namespace, name) = &self.layer;
        LayerReference::new(namespace, name)
    }

    /// `NAMESPACE/NAME` of the layer.
    pub(super) fn layer_path(&self) -> String {
        self.layer_reference().path
    }
}

/// Why the declared source of a function library is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryTrouble {
    /// One word; part of the API.
    pub reason: &'static str,
    /// A sentence; the server's own words, where it gave some.
    pub message: String,
}
