//! What the servers prove of the users' rights: `ACL DRYRUN`, asked where an answer is missing or old.
//!
//! After the steps, because a failover changes the process that the proofs are about: all of them are due in the very pass that has to
//! point the Services, which must not wait for some thousands of questions.

use super::super::context::Context;
use super::super::seen::Seen;
use super::super::uses::Uses;
use super::act::Done;
use super::application_proof;
use super::known::Judged;
use super::planned::Planned;

/// What was proven.
pub(super) struct Proofs {
    /// What the layer's application user or administrator may and should not, or should and may not, with the node.
    pub(super) application_breaches: Vec<String>,
    /// The same of the user of each use that is served, in their order; `None`: it could not be asked.
    pub(super) uses: Vec<Option<Vec<String>>>,
}

impl Proofs {
    /// Asks what is due, once the steps are done.
    pub(super) async fn of(
        context: &Context,
        judged: &Judged,
        seen: &Seen,
        uses: &Uses,
        planned: &Planned,
        _after: &Done,
    ) -> Self {
        let wanted = &planned.wanted;
        Self {
            application_breaches: application_proof::breaches(context, &judged.layer, &wanted.desired, seen).await,
            uses: uses.prove(context, wanted.pass(judged, seen)).await,
        }
    }
}
