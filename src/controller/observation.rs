//! What one pass saw of a layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::act::StepOutcome;
use crate::api::data_layer::DataLayer;
use crate::dataplane::Library;
use crate::model::NodeId;
use crate::model::audit::AuditReport;
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::roles::data;
use crate::observe::servers::Question;
use crate::plan::Step;
use crate::redis::Connection;
use crate::validate::ValidatedLayer;

/// What was seen: Kubernetes' objects, and the answers of the servers.
pub(super) struct Observation {
    pub(super) observed: Observed,
    /// The planned move of the primary that ended since the pass before, and how.
    pub(super) ended_move: Option<(Step, StepOutcome)>,
    pub(super) connections: BTreeMap<NodeId, Connection>,
    /// What the servers refused to say, and what their agents did about them.
    pub(super) faults: Vec<(NodeId, String)>,
    /// Which nodes wait for what only a person ends.
    pub(super) waits: Vec<String>,
    /// What the agents found in the keys.
    pub(super) audits: Vec<(NodeId, Arc<AuditReport>)>,
    /// What the last whole passes over the keys of all shards found together; `None`: nothing is known that goes by the prefixes that are
    /// declared now.
    pub(super) audit: Option<Arc<AuditReport>>,
    /// UIDs of uses whose previous user has no connection any more. Asked only at the end of a rotation.
    pub(super) unused: BTreeSet<String>,
}

/// A layer in one pass, as its uses are told of it.
#[derive(Clone, Copy)]
pub(super) struct LayerPass<'pass> {
    pub(super) object: &'pass DataLayer,
    /// The accepted specification after validation.
    pub(super) layer: &'pass ValidatedLayer,
    pub(super) desired: &'pass Desired,
    /// What was seen before the steps.
    pub(super) seen: &'pass Observation,
    /// Where the servers and their agents are.
    pub(super) questions: &'pass BTreeMap<NodeId, Question>,
    /// What the last whole pass over the keys found; `None`: nothing is known that goes by the prefixes that are declared now.
    pub(super) audit: Option<&'pass Arc<AuditReport>>,
    /// The primary beyond doubt.
    pub(super) primary: Option<NodeId>,
    /// The libraries of uses that are wanted, by name. A kind of which a policy is unknown has none.
    pub(super) libraries: &'pass BTreeMap<String, Library>,
}

impl LayerPass<'_> {
    /// Whether the primary answers for a library of this name, with whatever policy.
    pub(super) fn has_library(&self, name: &str) -> bool {
        let server = self.primary.and_then(|node| data(&self.seen.observed, node));
        server.is_some_and(|server| server.libraries.contains_key(name))
    }
}
