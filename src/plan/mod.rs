//! What to do next: pure, total, explained.
//!
//! [`plan`] looks at what is desired and what was observed and answers with the next safe batch of steps, and with a typed
//! reason for everything that it leaves undone. It knows no clock, no Kubernetes type and no client; it never fails.

pub mod step;

use std::collections::BTreeMap;

use crate::model::NodeId;
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
