//! Carries out steps, each under its precondition. Decides nothing, repeats nothing, waits for nothing: what fails is an
//! outcome, and the loop is the retry. Only the move of the primary takes longer than a request: see [`Handover`].
//!
//! Knows clients and the plan's steps. Must never see `observe` or `validate`.

mod claims;
pub(crate) mod fingerprint;
pub mod kube;
mod load_time;
mod outcome;
pub mod redis;
mod resources;
pub mod secrets;
pub mod step;
pub mod switchover;

pub use kube::{Applied, Writer};
pub use outcome::{Error, StepOutcome};
pub use resources::StepResources;
pub(crate) use step::{PlanOutcome, label_pod, point_service};
pub use step::{carry_out, log_outcome, name_of};
pub use switchover::Handover;
