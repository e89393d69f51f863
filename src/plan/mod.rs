//! What to do next: pure, total, explained.
//!
//! [`plan`] looks at what is desired and what was observed and answers with the next safe batch of steps, and with a typed
//! reason for everything that it leaves undone. It knows no clock, no Kubernetes type and no client; it never fails.

mod batch;
pub mod cluster;
pub(crate) mod forget;
pub(crate) mod form;
mod handover;
mod hold;
pub mod lint;
pub(crate) mod live;
mod mend;
mod nodes;
mod promote;
pub mod promotion;
pub mod reason;
mod removal;
pub(crate) mod roles;
pub(crate) mod roll;
mod safety;
pub mod step;

use crate::model::desired::Desired;
use crate::model::observed::Observed;
pub use batch::Plan;
pub use promotion::Promotion;
pub use reason::{RefusalReason, WaitReason};
pub(crate) use safety::loses_data;
pub use step::Step;

/// Plans what routes clients, and nothing else: what a replica of the operator does that does not lead.
pub fn route(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan { initialised: observed.initialised, ..Plan::default() };
    if desired.paused {
        plan.waiting.push(WaitReason::Paused);
        return plan;
    }
    plan.primaries = roles::primaries(desired, observed);
    roles::route(desired, observed, &mut plan);
    plan
}

/// Plans the next safe batch, and what a person asked for where that leaves room for it.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = batch(desired, observed);
    promote::plan(desired, observed, &mut plan);
    plan
}

/// Rules in the order of their urgency; a rule that disturbs runs only when nothing else is left to do, so that at most one node is
/// away by our hand.
fn batch(desired: &Desired, observed: &Observed) -> Plan {
    // Clients first, however many other steps there are.
    let mut plan = route(desired, observed);
    if plan.waiting.contains(&WaitReason::Paused) {
        return plan;
    }
    if observed.handover {
        // What is seen in the middle of it is nothing to build on.
        plan.waiting.push(WaitReason::Handover);
        return plan;
    }
    form::plan(desired, observed, &mut plan);
    roles::plan(desired, observed, &mut plan);
    live::plan(desired, observed, &mut plan);
    cluster::plan(desired, observed, &mut plan);
    mend::plan(desired, observed, &mut plan);
    forget::plan(desired, observed, &mut plan);
    roll::plan(desired, observed, &mut plan);
    hold::refuse(desired, observed, &mut plan);
    removal::plan(desired, observed, &mut plan);
    // A setting that a server refuses without end keeps a layer from being Ready, not from being used.
    let rests = plan.steps.iter().all(|step| matches!(step, Step::SetSettings { .. }) || step.is_of_users_library());
    if rests && plan.waiting.is_empty() && plan.refused.is_empty() {
        plan.initialised = true;
    }
    plan
}
