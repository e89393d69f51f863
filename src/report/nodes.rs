//! Nodes, memory and the production checklist.

use super::draft::{ConditionDraft, Drafts};
use super::kept::KeptFolders;
use super::{Facts, audit, proofs};
use crate::api::data_layer_status::{AuditStatus, ChecklistItem, DataLayerStatus, MemoryStatus, NodeStatus};
use crate::api::names;
use crate::model::cluster::Shard;
use crate::model::observed::{Observed, ObservedServer, Replication};
use crate::model::roles::{Primaries, data, is_in_sync, is_lagging, of_kind, shards, topology};
use crate::model::{NodeId, NodeKind, Purpose};

/// Every declared node with its role, its state, and what it keeps.
pub(super) fn of(facts: Facts<'_>, primaries: &Primaries, kept: &KeptFolders) -> Vec<NodeStatus> {
    let one = |node: &NodeId| NodeStatus {
        kept_aside: kept.get(node).cloned().unwrap_or_default(),
        ..one(facts, *node, primaries)
    };
    facts.desired.nodes.keys().map(one).collect()
}

fn one(facts: Facts<'_>, node: NodeId, primaries: &Primaries) -> NodeStatus {
    let seen = facts.observed.nodes.get(&node);
    let primary = primaries.of(node);
    let role = match node.kind {
        NodeKind::Sentinel => Some("Sentinel"),
        NodeKind::Data if primary == Some(node) => Some("Primary"),
        NodeKind::Data => data(facts.observed, node).map(|server| match server.replication {
            // By its own word only: the Sentinels name another, or none.
            Replication::Primary { .. } => "Primary",
            Replication::Replica { .. } => "Replica",
        }),
    };
    let state = match seen.map(|seen| &seen.server) {
        None | Some(ObservedServer::Unknown) => "Unreachable",
        Some(ObservedServer::Loading) => "Loading",
        Some(ObservedServer::Sentinel(server)) if server.tilt || server.master.is_none() => "Syncing",
        Some(ObservedServer::Sentinel(_)) => "InSync",
        Some(ObservedServer::Data(_)) if primary == Some(node) => "InSync",
        Some(ObservedServer::Data(_)) => {
            if primary.is_some_and(|primary| is_in_sync(facts.observed, node, primary)) {
                "InSync"
            } else if primary.is_some_and(|primary| is_lagging(facts.observed, node, primary)) {
                "Lagging"
            } else {
                "Syncing"
            }
        }
    };
    NodeStatus {
        name: names::node(&facts.desired.layer.name, node),
        role: role.map(str::to_owned),
        address: seen.and_then(|seen| seen.address.as_ref()).map(ToString::to_string),
        zone: seen.and_then(|seen| seen.pod.as_ref()).and_then(|pod| pod.zone.clone()),
        state: Some(state.to_owned()),
        kept_aside: Vec::new(),
    }
}

/// How many replicas have everything that the primary sent.
pub(crate) fn replicas_in_sync(facts: Facts<'_>, primaries: &Primaries) -> usize {
    let is_whole =
        |node: &NodeId| primaries.of(*node).is_some_and(|primary| is_in_sync(facts.observed, *node, primary));
    of_kind(facts.desired, NodeKind::Data).filter(is_whole).count()
}

/// How many replicas of each shard have everything: the fewest of any. It is what `replicas` declares.
pub(crate) fn replicas_of_each(facts: Facts<'_>, primaries: &Primaries) -> usize {
    let is_whole =
        |node: &NodeId| primaries.of(*node).is_some_and(|primary| is_in_sync(facts.observed, *node, primary));
    let of_shard = |shard: Shard| {
        let nodes = of_kind(facts.desired, NodeKind::Data).filter(move |node| Shard::of(*node) == Some(shard));
        nodes.filter(is_whole).count()
    };
    shards(facts.desired).into_iter().map(of_shard).min().unwrap_or(0)
}

/// How many shards of a Cluster have a primary that owns slots.
pub(crate) fn shards_served(facts: Facts<'_>, primaries: &Primaries) -> usize {
    let topology = topology(facts.desired, facts.observed);
    primaries.nodes().filter(|node| topology.shards.values().any(|shard| shard.owner == Some(*node))).count()
}

pub(crate) fn version(observed: &Observed, primaries: &Primaries) -> Option<String> {
    let versions = primaries.nodes().filter_map(|node| Some(data(observed, node)?.version.clone()));
    versions.into_iter().find(|version| !version.is_empty())
}

/// The budget with the share that is in use, of several primaries the largest, in steps of ten percent so that it rests; the last known
/// share while none can be asked.
pub(crate) fn memory(facts: Facts<'_>, primaries: &Primaries, old: &DataLayerStatus) -> MemoryStatus {
    let tenths = |node| {
        let server = data(facts.observed, node)?;
        Some(server.used_memory.saturating_mul(10).checked_div(server.maxmemory)?.min(10))
    };
    let share = primaries.nodes().filter_map(tenths).max().map(|tenths| format!("{}%", tenths * 10));
    let known = || old.memory.as_ref().and_then(|memory| memory.used.clone());
    MemoryStatus { used: share.or_else(known), ..facts.subject.memory.clone() }
}

/// What production needs, each with what shows it.
pub(crate) fn checklist(facts: Facts<'_>, drafts: &Drafts, audit: Option<&AuditStatus>) -> Vec<ChecklistItem> {
    let of = |item: &str, draft: &ConditionDraft| ChecklistItem {
        item: item.to_owned(),
        ok: draft.holds == Some(true),
        evidence: draft.message.clone(),
    };
    let subject = facts.subject;
    let clients = facts.desired.settings.get("maxclients").cloned().unwrap_or_default();
    let has_room = clients.parse::<u32>().is_ok_and(|clients| clients >= subject.max_connections);
    let refusing_clients = proofs::refusing_clients(facts.desired, facts.observed);
    let budget = if refusing_clients.is_empty() {
        format!("maxclients {clients}, {} of them for applications", subject.max_connections)
    } else {
        refusing_clients.join("; ")
    };
    let mut items = vec![
        of("memory bounded", &drafts.memory_bounded),
        eviction(facts),
        of("persisted", &drafts.persisted),
        of("functions on every primary", &drafts.functions_loaded),
        ChecklistItem {
            item: "connections within the pool budget".to_owned(),
            ok: has_room && refusing_clients.is_empty(),
            evidence: budget,
        },
        audit::item(audit),
    ];
    let redundant = of("no single point of failure", &drafts.highly_available);
    items.push(if facts.desired.is_single_node() { redundant } else { spread(facts, redundant) });
    items
}

/// What is dropped when memory is full must be what may go. A session or a context has a TTL as every key has, so a policy that picks
/// among keys with a TTL drops it, unless it takes those that are about to end.
fn eviction(facts: Facts<'_>) -> ChecklistItem {
    let policy = facts.desired.settings.get("maxmemory-policy").map_or("noeviction", String::as_str);
    let (ok, evidence) = match policy {
        "noeviction" => (true, "noeviction: no key is ever evicted".to_owned()),
        "volatile-ttl" => (true, "volatile-ttl: only keys that end soonest are evicted".to_owned()),
        _ if facts.subject.purpose == Purpose::Cache => {
            (true, format!("{policy}: right for a cache, where a key may go"))
        }
        _ => (false, format!("{policy}: drops keys that are still wanted when memory is full")),
    };
    ChecklistItem { item: "eviction fits the uses".to_owned(), ok, evidence }
}

/// Redundancy is worth nothing if all pods share one Kubernetes node.
fn spread(facts: Facts<'_>, item: ChecklistItem) -> ChecklistItem {
    let places = of_kind(facts.desired, NodeKind::Data)
        .filter_map(|node| facts.observed.nodes.get(&node)?.pod.as_ref()?.kubernetes_node.clone())
        .collect::<std::collections::BTreeSet<_>>();
    if item.ok && places.len() < 2 {
        let evidence = "all data pods run on one Kubernetes node".to_owned();
        return ChecklistItem { ok: false, evidence, ..item };
    }
    item
}
