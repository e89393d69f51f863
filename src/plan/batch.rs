//! A plan: the next safe batch of steps, and why the rest is left undone.

use super::promotion::Promotion;
use super::reason::{RefusalReason, WaitReason};
use super::step::Step;
use crate::model::roles::Primaries;

/// Steps that may be carried out together now, and the reason for each that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The nodes that are primaries beyond doubt. Where a shard has none, nothing that depends on it is done.
    pub primaries: Primaries,
    /// Whether the layer was Ready once, or is found as it is declared now: this is recorded on its objects.
    pub initialised: bool,
    /// Steps in the order in which they are to be done; each names its precondition.
    pub steps: Vec<Step>,
    /// What is not done yet, and what it waits for.
    pub waiting: Vec<WaitReason>,
    /// What will not be done, and why not.
    pub refused: Vec<RefusalReason>,
    /// What becomes of a person's request to move the primary; `None`: there is none that is not answered.
    pub promotion: Option<Promotion>,
}
