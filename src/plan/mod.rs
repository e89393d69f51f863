//! What to do next: pure, total, explained.
//!
//! [`plan`] looks at what is desired and what was observed and answers with the next safe batch of steps, and with a typed
//! reason for everything that it leaves undone. It knows no clock, no Kubernetes type and no client; it never fails.

mod form;
mod live;
mod removal;
mod roll;
pub mod step;
pub mod view;

use std::collections::BTreeMap;

use crate::model::desired::Desired;
use crate::model::observed::Observed;
use crate::model::{Mode, NodeId};
pub use step::{Refused, Step, Waiting};

/// The next safe batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the builders render this time.
    pub dials: Dials,
    /// Steps in the order in which they are to be done; each names its precondition.
    pub steps: Vec<Step>,
    /// What is not done yet, and what it waits for.
    pub waiting: Vec<Waiting>,
    /// What will not be done, and why not.
    pub refused: Vec<Refused>,
}

/// Fields of otherwise static objects that move in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dials {
    /// The data node whose pod the primary's Service selects; `None`: leave it as it is.
    pub primary: Option<NodeId>,
    /// Whether the layer is recorded as initialised.
    pub initialised: bool,
    /// Nodes whose StatefulSet is applied in this batch.
    pub apply: BTreeMap<NodeId, String>,
}

/// Looks and decides.
///
/// The rules in order of what they serve: the objects that nodes live in, then what running servers are told, then what
/// restarts or removes a node. Only the last kind disrupts: it runs alone, one node at a time, and only while nothing else
/// is in doubt.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let view = view::View::of(desired, observed);
    let mut plan = Plan::default();
    if desired.paused {
        plan.waiting.push(Waiting::Paused);
        return plan;
    }
    plan.dials.primary = view.primary;
    view.waiting(&mut plan.waiting);
    form::plan(&view, &mut plan);
    live::plan(&view, &mut plan);
    roll::plan(&view, &mut plan);
    removal::plan(&view, &mut plan);
    plan.dials.initialised = observed.initialised || (plan.waiting.is_empty() && plan.steps.is_empty());
    plan.waiting.sort();
    plan.waiting.dedup();
    plan.refused.sort();
    plan.refused.dedup();
    plan
}

/// Whether a layer has Sentinels.
const fn has_sentinels(mode: Mode) -> bool {
    matches!(mode, Mode::Sentinel)
}
