//! What the live servers prove, one question at a time. Each answer is the list of what is missing: empty is proven.

use super::agreement::unsettled;
use crate::model::cluster::Shard;
use crate::model::desired::Desired;
use crate::model::function_library::is_users_library;
use crate::model::observed::Observed;
use crate::model::roles::{Primaries, address, data, is_in_sync, of_kind, sentinel, shards, topology};
use crate::model::{NodeId, NodeKind};

/// Directives that are not as wanted, with their node.
pub(super) fn settings(desired: &Desired, observed: &Observed) -> Vec<String> {
    let mut missing = Vec::new();
    for node in of_kind(desired, NodeKind::Data) {
        let Some(server) = data(observed, node) else {
            missing.push(format!("{node} does not answer"));
            continue;
        };
        let differing = desired.settings.iter().filter(|(name, value)| server.settings.get(*name) != Some(value));
        let names: Vec<&str> = differing.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            missing.push(format!("{node} differs in {}", names.join(", ")));
        }
    }
    missing
}

/// Users that are not in place, and those that are not declared, with their node.
pub(super) fn users(desired: &Desired, observed: &Observed) -> Vec<String> {
    let mut missing = Vec::new();
    for node in desired.nodes.keys().copied() {
        let (wanted, seen) = match node.kind {
            NodeKind::Data => {
                let server = data(observed, node);
                (&desired.users, server.map(|server| (&server.users_in_place, &server.users_foreign)))
            }
            NodeKind::Sentinel => {
                let server = sentinel(observed, node);
                (&desired.sentinel_users, server.map(|server| (&server.users_in_place, &server.users_foreign)))
            }
        };
        let Some((in_place, foreign)) = seen else {
            missing.push(format!("{node} does not answer"));
            continue;
        };
        let names: Vec<&str> = wanted.keys().filter(|name| !in_place.contains(*name)).map(String::as_str).collect();
        if !names.is_empty() {
            missing.push(format!("{node} differs in the user {}", names.join(", ")));
        }
        if !foreign.is_empty() {
            let names: Vec<&str> = foreign.iter().map(String::as_str).collect();
            missing.push(format!("{node} has undeclared users: {}", names.join(", ")));
        }
    }
    missing
}

/// Function libraries that the primary does not answer for. Users' libraries are proven for their own uses.
pub(super) fn functions(desired: &Desired, observed: &Observed, primaries: &Primaries) -> Vec<String> {
    let wanted = || desired.libraries.iter().filter(|(name, _)| !is_users_library(name));
    let mut missing = Vec::new();
    for shard in shards(desired) {
        let Some((node, server)) = primaries.of(shard.node(0)).and_then(|node| Some((node, data(observed, node)?)))
        else {
            let of_shard = if desired.in_cluster { format!(" of {shard}") } else { String::new() };
            missing.push(format!("there is no primary{of_shard} to ask"));
            continue;
        };
        let primary = if desired.in_cluster { format!("the primary {node}") } else { "the primary".to_owned() };
        let lacking = wanted().filter(|(name, library)| server.libraries.get(*name) != Some(&library.digest));
        missing.extend(
            lacking.map(|(name, _)| format!("{primary} does not have the function library {name} as declared")),
        );
    }
    missing
}

/// Data nodes whose memory is not bounded as wanted.
pub(super) fn memory(desired: &Desired, observed: &Observed) -> Vec<String> {
    let wanted: Option<u64> = desired.settings.get("maxmemory").and_then(|bytes| bytes.parse().ok());
    let nodes = of_kind(desired, NodeKind::Data);
    nodes
        .filter_map(|node| match data(observed, node) {
            None => Some(format!("{node} does not answer")),
            Some(server) if server.maxmemory == 0 => Some(format!("{node} has no maxmemory")),
            Some(server) if wanted.is_some_and(|wanted| server.maxmemory != wanted) => {
                Some(format!("{node} has another maxmemory"))
            }
            Some(_) => None,
        })
        .collect()
}

/// Data nodes that do not write what they should, or fail to.
pub(super) fn persistence(desired: &Desired, observed: &Observed) -> Vec<String> {
    let mut missing = Vec::new();
    for node in of_kind(desired, NodeKind::Data) {
        let Some(server) = data(observed, node) else {
            missing.push(format!("{node} does not answer"));
            continue;
        };
        for name in ["appendonly", "save"] {
            if desired.settings.get(name).is_some_and(|wanted| server.settings.get(name) != Some(wanted)) {
                missing.push(format!("{node}: {name} is not as declared"));
            }
        }
    }
    missing.extend(files(observed));
    missing
}

/// Which data nodes cannot write their files: a full volume, for one.
pub(super) fn files(observed: &Observed) -> Vec<String> {
    let troubled =
        observed.nodes.keys().filter_map(|node| Some((node, data(observed, *node)?.persistence_trouble.as_ref()?)));
    troubled.map(|(node, trouble)| format!("{node} cannot write its {trouble} file")).collect()
}

/// What is missing for the loss of any one node to be survived.
pub(super) fn availability(desired: &Desired, observed: &Observed, primaries: &Primaries) -> Vec<String> {
    if desired.in_cluster {
        return availability_of_shards(desired, observed, primaries);
    }
    let Some(primary) = primaries.first() else { return vec!["there is no primary".to_owned()] };
    let mut missing = not_in_sync(desired, observed, primaries);
    let others = of_kind(desired, NodeKind::Sentinel).count().saturating_sub(1);
    for node in of_kind(desired, NodeKind::Sentinel) {
        match sentinel(observed, node).map(|server| server.master.as_ref()) {
            None => missing.push(format!("{node} does not answer")),
            Some(None) => missing.push(format!("{node} watches no primary yet")),
            Some(Some(master)) if master.other_sentinels.len() < others => {
                missing.push(format!("{node} does not know every other Sentinel"));
            }
            Some(Some(master)) => {
                if address(observed, primary) != Some(&master.address) {
                    missing.push(format!("{node} names another primary"));
                }
            }
        }
    }
    missing
}

/// The same of a Cluster. That the servers agree belongs to it: until then no election is sure of its votes.
fn availability_of_shards(desired: &Desired, observed: &Observed, primaries: &Primaries) -> Vec<String> {
    let without = shards(desired).into_iter().filter(|shard| primaries.of(shard.node(0)).is_none());
    let mut missing: Vec<String> = without.map(|shard| format!("{shard} has no primary")).collect();
    missing.extend(not_in_sync(desired, observed, primaries));
    let topology = topology(desired, observed);
    missing.extend(topology.unsettled.first().map(|what| format!("the servers do not agree: {}", unsettled(what))));
    let alone = shards(desired)
        .into_iter()
        .filter(|shard| of_kind(desired, NodeKind::Data).filter(|node| Shard::of(*node) == Some(*shard)).count() < 2);
    missing.extend(alone.map(|shard| format!("{shard} has no replica")));
    missing
}

/// Replicas that do not have everything that the primary of their shard sent.
fn not_in_sync(desired: &Desired, observed: &Observed, primaries: &Primaries) -> Vec<String> {
    let replicas = of_kind(desired, NodeKind::Data).filter(|node| !primaries.is(*node));
    let lags = |node: &NodeId| primaries.of(*node).is_some_and(|primary| !is_in_sync(observed, *node, primary));
    replicas.filter(lags).map(|node| format!("{node} is not in sync")).collect()
}

/// Nodes that do not run what they should.
pub(super) fn revisions(desired: &Desired, observed: &Observed) -> Vec<String> {
    let wrong = |node: &NodeId, revision: &str| {
        let pod = observed.nodes.get(node).and_then(|seen| seen.pod.as_ref());
        pod.is_none_or(|pod| pod.restart_revision != revision || pod.deleting)
    };
    let nodes = desired.nodes.iter().filter(|(node, wanted)| wrong(node, &wanted.restart_revision));
    nodes.map(|(node, _)| node.to_string()).collect()
}

/// Data nodes that turn new clients away.
pub(super) fn refusing_clients(desired: &Desired, observed: &Observed) -> Vec<String> {
    let most = desired.settings.get("maxclients").map_or("its", String::as_str);
    let nodes =
        of_kind(desired, NodeKind::Data).filter(|node| data(observed, *node).is_some_and(|it| it.refuses_clients));
    nodes.map(|node| format!("{node} refuses new clients: {most} connections are open")).collect()
}

/// Sentinels whose clock jumped, or that were stopped for a while: they elect no replica for 30 s.
pub(super) fn tilted(desired: &Desired, observed: &Observed) -> Vec<String> {
    let nodes = of_kind(desired, NodeKind::Sentinel).filter(|node| sentinel(observed, *node).is_some_and(|it| it.tilt));
    nodes
        .map(|node| format!("{node} is in TILT mode: it elects no primary until it has run without a pause for 30 s"))
        .collect()
}
