//! What the servers prove of a use: that its user has its rights and no others, and that its policy is carried out.

use std::time::Instant;

use futures::{FutureExt as _, StreamExt as _, stream};

use super::super::context::Context;
use super::super::observation::LayerPass;
use super::counts;
use super::memory::PROOF_HOLDS;
use super::of_layer::{TOGETHER, Uses};
use super::served::ServedUse;
use crate::build::revision;
use crate::model::NodeId;
use crate::model::observed::ObservedServer;
use crate::redis::use_access::violations;
use crate::report::draft::ConditionKind;
use crate::telemetry::Chain;

/// Users of new uses that are proven in one pass at most: some 70 questions each, for which the pass of a layer that hundreds of uses
/// come to would keep its place from other layers.
const MOST_NEWCOMERS: usize = 50;

impl Uses {
    /// What the user of each use that is served may and should not, or should and may not; `None`: it could not be asked.
    /// What the functions counted is asked as well, once a minute.
    pub(in crate::controller) async fn prove(
        &self,
        context: &Context,
        pass: LayerPass<'_>,
    ) -> Vec<Option<Vec<String>>> {
        if self.served.iter().any(|it| it.accepted().kind.words().counters.is_some()) {
            counts::ask(context, pass).await;
        }
        let mut questions = Vec::new();
        let mut newcomers = 0;
        for it in &self.served {
            let is_newcomer = it.library.is_none() && !it.was_ready() && !it.is_proven(context, pass);
            newcomers += usize::from(is_newcomer);
            let waits = is_newcomer && newcomers > MOST_NEWCOMERS;
            questions.push(
                async move { if it.library.is_some() || waits { None } else { it.violations(context, pass).await } }
                    .boxed(),
            );
        }
        stream::iter(questions).buffered(TOGETHER).collect().await
    }
}

impl ServedUse {
    /// Who was asked what: process, user and rules.
    fn question(&self, pass: LayerPass<'_>) -> Option<(String, NodeId, String)> {
        let node = pass.primary?;
        let ObservedServer::Data(server) = &pass.seen.observed.nodes.get(&node)?.server else { return None };
        let user = self.user(self.rotation().shown.unwrap_or(self.accepted().rotation));
        let rules = &pass.desired.users.get(&user)?.rules;
        server
            .users_in_place
            .contains(&user)
            .then(|| (revision::digest(&format!("{} {user} {}", server.run_id, rules.join(" "))), node, user))
    }

    /// Whether it was told Ready before.
    fn was_ready(&self) -> bool {
        let status = self.object().and_then(|object| object.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.any(|known| known.type_ == ConditionKind::Ready && known.status == "True")
    }

    fn is_proven(&self, context: &Context, pass: LayerPass<'_>) -> bool {
        let Some((question, _, _)) = self.question(pass) else { return true };
        context
            .uses
            .proofs
            .lock()
            .get(&self.accepted().uid)
            .is_some_and(|(asked, at, _)| *asked == question && at.elapsed() < PROOF_HOLDS)
    }

    /// What `ACL DRYRUN` says; for a while the last answer for the same process and rules.
    async fn violations(&self, context: &Context, pass: LayerPass<'_>) -> Option<Vec<String>> {
        let (question, node, user) = self.question(pass)?;
        if !self.is_proven(context, pass)
            && let Some(connection) = pass.seen.connections.get(&node)
        {
            match violations(connection, &user, self.grant()).await {
                Ok(found) => {
                    let proof = (question.clone(), Instant::now(), found);
                    context.uses.proofs.lock().insert(self.accepted().uid.clone(), proof);
                }
                Err(error) => tracing::debug!(user, error = %Chain(&error), "no proof"),
            }
        }
        let proofs = context.uses.proofs.lock();
        proofs.get(&self.accepted().uid).filter(|(asked, _, _)| *asked == question).map(|(_, _, found)| found.clone())
    }

    /// Whether the primary answers for a library that holds this policy: the wanted one, or an older one of which that was
    /// proven before. Otherwise each change of one use would be news of all.
    pub(super) fn is_loaded(&self, context: &Context, pass: LayerPass<'_>, policy: &str) -> bool {
        let server = pass.primary.and_then(|node| match &pass.seen.observed.nodes.get(&node)?.server {
            ObservedServer::Data(server) => Some(server),
            _ => None,
        });
        let name = self.accepted().kind.words().library;
        let library = pass.libraries.get(name);
        // Another use of the kind cannot be read, so which library is wanted is unknown: what was told last still holds.
        let told = self.object().and_then(|object| object.status.as_ref()?.functions.as_ref());
        let is_told = library.is_none() && told.is_some_and(|functions| functions.digest == policy);
        let Some(answered) = server.and_then(|server| server.libraries.get(name)).filter(|it| !it.is_empty()) else {
            return false;
        };
        let (uid, layer) = (&self.accepted().uid, &pass.layer.identity.uid);
        if context.uses.is_held(layer, name, answered, uid, policy) {
            return true;
        }
        let mut proven = context.uses.proven.lock();
        if library.is_some_and(|library| library.digest == *answered) {
            proven.insert(self.accepted().uid.clone(), (policy.to_owned(), answered.clone()));
            return true;
        }
        is_told || proven.get(&self.accepted().uid).is_some_and(|(of, digest)| of == policy && digest == answered)
    }
}
