//! What to do next: pure, total, explained.
//!
//! [`plan`] looks at what is desired and what was observed and answers with the next safe batch of steps, and with a typed
//! reason for everything that it leaves undone. It knows no clock, no Kubernetes type and no client; it never fails.

pub mod forget;
pub mod form;
mod hold;
pub mod lint;
pub mod live;
mod mend;
mod removal;
pub mod roles;
pub mod roll;
mod safety;
pub mod step;

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

/// Plans what routes clients, and nothing else: what a replica of the operator does that does not lead.
pub fn route(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.dials.initialised = observed.initialised;
    if desired.paused || desired.mode == Mode::Cluster {
        plan.waiting.push(Waiting::Paused);
        return plan;
    }
    plan.dials.primary = roles::primary(desired, observed);
    roles::route(desired, observed, &mut plan);
    plan
}

/// Plans the next safe batch. Rules in the order of their urgency; a rule that disturbs runs only when nothing else is
/// left to do, so that at most one node is away by our hand.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    // Clients first, however many other steps there are.
    let mut plan = route(desired, observed);
    if plan.waiting.contains(&Waiting::Paused) {
        return plan;
    }
    form::plan(desired, observed, &mut plan);
    roles::plan(desired, observed, &mut plan);
    live::plan(desired, observed, &mut plan);
    mend::plan(desired, observed, &mut plan);
    forget::plan(desired, observed, &mut plan);
    roll::plan(desired, observed, &mut plan);
    hold::tell(desired, observed, &mut plan);
    removal::plan(desired, observed, &mut plan);
    // A setting that a server refuses for ever keeps a layer from being Ready, not from being used.
    let rests = plan.steps.iter().all(|step| matches!(step, Step::SetSettings { .. }) || step.is_of_users_library());
    if rests && plan.waiting.is_empty() && plan.refused.is_empty() {
        plan.dials.initialised = true;
    }
    for step in &plan.steps {
        if let Step::ApplyWorkload { node, workload_digest, .. } = step {
            plan.dials.apply.insert(*node, workload_digest.clone());
        }
    }
    plan
}
