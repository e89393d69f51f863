//! What a pass knows of the uses of its layer.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::watches::WatchedUse;
use super::index::UsePlace;
use super::served::ServedUse;
use crate::api::data_layer_status::Tenant;
use crate::model::{Policy, UseKind};
use crate::validate::uses::tenancy::Refusal;

/// Reads and writes of one pass that are under way together.
pub(super) const TOGETHER: usize = 8;

pub(in crate::controller) struct Uses {
    pub(super) served: Vec<ServedUse>,
    /// Uses that the layer does not serve, and why.
    pub(super) refused: Vec<(Arc<WatchedUse>, Refusal)>,
    /// Uses of which too little is known now: their users stay as they are.
    pub(super) kept: Vec<UsePlace>,
    /// Policies of uses that cannot be read now, as they were admitted last.
    pub(super) remembered: Vec<Policy>,
    /// Kinds of which a policy is unknown: their library stays as it is.
    pub(super) unknown: BTreeSet<UseKind>,
    /// The places of all: of those that are there, and of those that left.
    pub(super) places: Vec<Tenant>,
}
