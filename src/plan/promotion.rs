//! What becomes of a person's request to move the primary.

use super::reason::{RefusalReason, WaitReason};

/// What becomes of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// The node is the primary.
    Done,
    /// The move was tried and failed. It is not tried again.
    Failed(String),
    /// As the layer is declared, it cannot be done.
    Impossible(Impossible),
    /// It waits; asked again in each pass.
    Held(PromotionBlocker),
    /// The move begins with this plan.
    Begins,
}

/// What forbids a request as long as the layer is declared as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impossible {
    /// The mode has one node.
    Standalone,
    /// A primary of mode `Cluster` is moved by the end of its pod only.
    Cluster,
    /// No data node of the layer is declared under that name.
    NoDataNode,
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionBlocker {
    /// Something else that is waited for.
    Waiting(WaitReason),
    /// What forbids to move the primary, or another change of the layer.
    Refused(RefusalReason),
    /// Steps that come first.
    Steps,
}
