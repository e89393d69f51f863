//! What the servers prove of the users' rights, after the steps: `ACL DRYRUN`, asked where an answer is missing or old.

use super::super::context::Context;
use super::super::seen::Seen;
use super::super::uses::Uses;
use super::application_proof;
use super::known::Judged;
use super::wanted::Wanted;

/// What was proven.
pub(super) struct Proofs {
    /// What the layer's application user or administrator may and should not, or should and may not, with the node.
    pub(super) application_breaches: Vec<String>,
    /// The same of the user of each use that is served, in their order; `None`: it could not be asked.
    pub(super) uses: Vec<Option<Vec<String>>>,
}

impl Proofs {
    /// Asks what is due.
    pub(super) async fn of(context: &Context, judged: &Judged, wanted: &Wanted, seen: &Seen, uses: &Uses) -> Self {
        Self {
            application_breaches: application_proof::breaches(context, &judged.layer, &wanted.desired, seen).await,
            uses: uses.prove(context, wanted.pass(judged, seen)).await,
        }
    }
}
