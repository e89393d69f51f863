//! What the layer's application user may do, proven on the live data nodes as it is for the users of stores.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::context::Context;
use super::super::uses::memory::{PROOF_HOLDS, locked};
use crate::build::revision;
use crate::model::NodeId;
use crate::model::desired::Desired;
use crate::model::observed::{Observed, ObservedServer};
use crate::redis::Connection;
use crate::redis::use_access::violations_of_application;
use crate::redis::users::APPLICATION;
use crate::report::NOT_PROVEN_YET;

/// What the application user may and should not, or should and may not, with the node; also where that could not be asked. Only
/// servers that have the user as it is declared are asked, and each answer is believed for [`PROOF_HOLDS`] of that process.
pub(super) async fn breaches(
    context: &Context,
    desired: &Desired,
    observed: &Observed,
    connections: &BTreeMap<NodeId, Connection>,
) -> Vec<String> {
    let Some(user) = desired.users.get(APPLICATION) else { return Vec::new() };
    let mut breaches = Vec::new();
    for (node, seen) in &observed.nodes {
        let ObservedServer::Data(server) = &seen.server else { continue };
        if !server.users_in_place.contains(APPLICATION) {
            continue;
        }
        let question = revision::digest(&format!("{} {}", server.run_id, user.rules.join(" ")));
        let key = (desired.layer.uid.clone(), *node);
        let known = locked(&context.uses.application).get(&key).cloned();
        let found = match known.filter(|(asked, at, _)| *asked == question && at.elapsed() < PROOF_HOLDS) {
            Some((_, _, found)) => found,
            None => match ask(connections.get(node)).await {
                Some(found) => {
                    locked(&context.uses.application).insert(key, (question, Instant::now(), found.clone()));
                    found
                }
                None => vec![NOT_PROVEN_YET.to_owned()],
            },
        };
        breaches.extend(found.iter().map(|breach| format!("{node}: {APPLICATION} {breach}")));
    }
    breaches
}

async fn ask(connection: Option<&Connection>) -> Option<Vec<String>> {
    match violations_of_application(connection?).await {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::debug!(user = APPLICATION, error = %crate::telemetry::Chain(&error), "no proof");
            None
        }
    }
}
