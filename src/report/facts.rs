//! Everything that the report of a layer is made from.

use std::sync::Arc;

use crate::api::data_layer_status::MemoryStatus;
use crate::model::audit::AuditReport;
use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::{NodeId, Purpose};
use crate::plan::{Plan, Step};

/// What a breach ends with that is none: no server could be asked yet what the user may do.
pub(crate) const NOT_PROVEN_YET: &str = "has rights that are not proven yet";

/// What is known of a layer besides `Desired`.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Clone, Debug)]
pub struct LayerSummary {
    /// The memory budget; `used` is filled in here.
    pub memory: MemoryStatus,
    /// Whether the layer's data should survive a restart.
    pub keeps_data: bool,
    /// What the data is for.
    pub purpose: Purpose,
    /// Whether there is an application user with a binding Secret.
    pub application_access: bool,
    /// Whether there is an administrator with a binding Secret.
    pub administrator_access: bool,
    /// Image of the engine.
    pub image: String,
    /// What is said of the directives that this version does not know.
    pub unknown_directives: Vec<String>,
    /// What the annotation that approves a generation says, where it is no number.
    pub odd_approval: Option<String>,
    /// What the annotation that asks to move the primary says.
    pub promote: Option<String>,
    /// Whether servers that keep nothing find no functions when they start: a Secret cannot hold their sources.
    pub leaves_out_functions: bool,
    /// Connections that uses may open together.
    pub max_connections: u32,
    /// What the application user or the administrator may and should not, or should and may not, with the node; where it was not
    /// proven, that.
    pub application_breaches: Vec<String>,
    /// What the last whole pass over the keys found; `None`: nothing is known that goes by the prefixes that are declared now.
    pub audit: Option<Arc<AuditReport>>,
}

/// A step that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// The step; `None`: an object without an order.
    pub step: Option<Step>,
    /// The error with its causes, without secrets.
    pub why: String,
    /// Whether trying again later may help by itself (it is then no degradation yet).
    pub passes: bool,
    /// Whether the object's name belongs to another.
    pub name_taken: bool,
}

/// Everything that a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'pass> {
    /// What is wanted.
    pub desired: &'pass Desired,
    /// What was seen.
    pub observed: &'pass Observed,
    /// What was planned.
    pub plan: &'pass Plan,
    /// What was planned and not done.
    pub undone: &'pass [StepFailure],
    /// What the servers refused to say, and what their agents did about them.
    pub faults: &'pass [(NodeId, String)],
    /// Which nodes wait for what only a person ends.
    pub waits: &'pass [String],
    /// Facts that only the report needs: memory, image, annotations.
    pub subject: &'pass LayerSummary,
}
