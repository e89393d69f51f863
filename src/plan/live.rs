//! What running servers are told without a restart: settings, users, functions, the Sentinels' times, and the label by which
//! reads are sent to a replica.

use std::collections::BTreeMap;

use super::view::View;
use super::{Plan, Step, has_sentinels};
use crate::model::desired::DesiredUser;
use crate::model::{NodeId, NodeKind};

/// Plans what differs on the servers that answer.
pub fn plan(view: &View<'_>, plan: &mut Plan) {
    for (&node, wanted) in &view.desired.nodes {
        let Some(pod) = view.pod(node).filter(|pod| !pod.deleting) else { continue };
        // A document is right for pods of its own revision; the others get it with their new pod.
        if pod.restart_revision == wanted.restart_revision && pod.config_digest != wanted.config_digest {
            let config_digest = wanted.config_digest.clone();
            plan.steps.push(Step::PatchConfig { node, pod_uid: pod.uid.clone(), config_digest });
        }
        match node.kind {
            NodeKind::Data => data(view, node, plan),
            NodeKind::Sentinel => sentinel(view, node, plan),
        }
    }
    library(view, plan);
    reads(view, plan);
}

fn data(view: &View<'_>, node: NodeId, plan: &mut Plan) {
    let Some(server) = view.data(node) else { return };
    let Some(wanted) = view.desired.nodes.get(&node) else { return };
    let differing: BTreeMap<String, String> = view
        .desired
        .settings
        .iter()
        // What a server does not report at all it does not know.
        .filter(|(name, value)| server.settings.get(*name).is_some_and(|live| live != *value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // A larger maxmemory in a pod of the old, smaller limit would have it killed: settings follow the pod.
    if !differing.is_empty() && view.is_of_revision(node, wanted) {
        plan.steps.push(Step::SetSettings { node, run_id: server.run_id.clone(), changes: differing });
    }
    users(node, &server.run_id, &view.desired.users, &server.users_in_place, plan);
    for user in &server.users_foreign {
        plan.steps.push(Step::DeleteUser { node, run_id: server.run_id.clone(), user: user.clone() });
    }
}

fn sentinel(view: &View<'_>, node: NodeId, plan: &mut Plan) {
    let Some(server) = view.sentinel(node) else { return };
    users(node, &server.run_id, &view.desired.sentinel_users, &server.users_in_place, plan);
    let wanted = view.desired.sentinel_settings;
    let is_wrong = server.master.as_ref().is_some_and(|master| {
        master.quorum != wanted.quorum
            || master.detection_milliseconds != wanted.detection_milliseconds
            || master.failover_timeout_milliseconds != wanted.failover_timeout_milliseconds
    });
    if is_wrong {
        plan.steps.push(Step::SetSentinel { node, run_id: server.run_id.clone() });
    }
}

fn users(
    node: NodeId,
    run_id: &str,
    wanted: &BTreeMap<String, DesiredUser>,
    in_place: &std::collections::BTreeSet<String>,
    plan: &mut Plan,
) {
    for user in wanted.keys().filter(|user| !in_place.contains(*user)) {
        plan.steps.push(Step::SetUser { node, run_id: run_id.to_owned(), user: user.clone() });
    }
}

/// Functions are a part of the dataset: loaded on the primary, they reach the replicas by themselves.
fn library(view: &View<'_>, plan: &mut Plan) {
    let Some((node, server)) = view.primary.and_then(|node| Some((node, view.data(node)?))) else { return };
    for (name, library) in &view.desired.libraries {
        if server.libraries.get(name) != Some(&library.digest) {
            plan.steps.push(Step::LoadLibrary {
                node,
                run_id: server.run_id.clone(),
                library: name.clone(),
                digest: library.digest.clone(),
            });
        }
    }
}

/// Reads go to replicas that are in sync. While nothing is known of a node its label stays: a mistake of ours must not take
/// a serving replica away.
fn reads(view: &View<'_>, plan: &mut Plan) {
    if !has_sentinels(view.desired.mode) || view.primary.is_none() {
        return;
    }
    for node in view.nodes(NodeKind::Data) {
        let (Some(pod), Some(_)) = (view.pod(node), view.data(node)) else { continue };
        let reads = view.primary != Some(node) && view.is_in_sync(node);
        if pod.reads != reads && !pod.deleting {
            plan.steps.push(Step::LabelReads { node, pod_uid: pod.uid.clone(), reads });
        }
    }
}
