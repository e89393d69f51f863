//! What the layer's application user and its administrator may do, proven on the live data nodes as it is for the users of stores.

use std::time::Instant;

use super::super::context::Context;
use super::super::observation::Observation;
use super::super::uses::memory::PROOF_HOLDS;
use crate::build::revision;
use crate::model::desired::Desired;
use crate::model::observed::ObservedServer;
use crate::redis::Connection;
use crate::redis::administrator::{self, ADMINISTRATOR};
use crate::redis::use_access::{OF_THE_APPLICATION, differing};
use crate::redis::users::APPLICATION;
use crate::report::NOT_PROVEN_YET;
use crate::validate::ValidatedLayer;

/// What these users may and should not, or should and may not, with the node; also where that could not be asked. Only
/// servers that have the user as it is declared are asked, and each answer is believed for [`PROOF_HOLDS`] of that process.
pub(super) async fn breaches(
    context: &Context,
    layer: &ValidatedLayer,
    desired: &Desired,
    seen: &Observation,
) -> Vec<String> {
    let administrator = layer.administrator.map(|access| (ADMINISTRATOR, administrator::expectations(access)));
    let users = [(APPLICATION, OF_THE_APPLICATION.to_vec())].into_iter().chain(administrator);
    let mut breaches = Vec::new();
    for (name, expectations) in users {
        let Some(user) = desired.users.get(name) else { continue };
        for (node, observed) in &seen.observed.nodes {
            let ObservedServer::Data(server) = &observed.server else { continue };
            if !server.users_in_place.contains(name) {
                continue;
            }
            let question = revision::digest(&format!("{} {}", server.run_id, user.rules.join(" ")));
            let uid = &desired.layer.uid;
            let known = context.uses.application.lock().get(uid).and_then(|known| known.get(&(*node, name)).cloned());
            let found = match known.filter(|(asked, at, _)| *asked == question && at.elapsed() < PROOF_HOLDS) {
                Some((_, _, found)) => found,
                None => match ask(seen.connections.get(node), name, &expectations).await {
                    Some(found) => {
                        let proof = (question, Instant::now(), found.clone());
                        context.uses.application.lock().entry(uid.clone()).or_default().insert((*node, name), proof);
                        found
                    }
                    None => vec![NOT_PROVEN_YET.to_owned()],
                },
            };
            breaches.extend(found.iter().map(|breach| format!("{node}: {name} {breach}")));
        }
    }
    breaches
}

async fn ask(connection: Option<&Connection>, user: &str, expectations: &[&str]) -> Option<Vec<String>> {
    match differing(connection?, user, expectations.iter().map(|expectation| (*expectation).to_owned())).await {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::debug!(user, error = %crate::telemetry::Chain(&error), "no proof");
            None
        }
    }
}
