//! One step of a plan, carried out: which means it needs, and how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::timeout;

use super::kube::{Applied, Writer};
use super::{Ending, Error, claims, redis};
use crate::answers;
use crate::api::names;
use crate::dataplane::Library;
use crate::failure::Class;
use crate::model::desired::Desired;
use crate::model::{Address, LayerIdentity, NodeId, NodeKind, UseKind};
use crate::plan::Step;
use crate::redis::{Connection, Endpoint};

/// How long a load of a library waits for its counters to be read.
const COUNTERS_WITHIN: Duration = Duration::from_millis(600);

/// Everything that the steps of one pass may need.
#[derive(Clone, Copy)]
pub struct Means<'pass> {
    /// The layer.
    pub layer: &'pass LayerIdentity,
    /// What is wanted.
    pub desired: &'pass Desired,
    /// Services of the nodes as built.
    pub services: &'pass BTreeMap<NodeId, Service>,
    /// StatefulSets of the nodes as built.
    pub workloads: &'pass BTreeMap<NodeId, StatefulSet>,
    /// Node-config documents as built.
    pub documents: &'pass BTreeMap<NodeId, String>,
    /// Services as they are, by name.
    pub live_services: &'pass BTreeMap<String, Arc<Service>>,
    /// StatefulSets as they are.
    pub live_workloads: &'pass BTreeMap<NodeId, Arc<StatefulSet>>,
    /// Function libraries with their sources.
    pub libraries: &'pass [Library],
    /// Open connections.
    pub connections: &'pass BTreeMap<NodeId, Connection>,
    /// Where the servers are, and as whom to log in.
    pub endpoints: &'pass BTreeMap<NodeId, Endpoint>,
    /// Announced addresses.
    pub addresses: &'pass BTreeMap<NodeId, Address>,
}

/// The step's name, as a metric label.
pub const fn name_of(step: &Step) -> &'static str {
    match step {
        Step::ApplyService { .. } => "ApplyService",
        Step::ApplyWorkload { .. } => "ApplyWorkload",
        Step::RestartPod { .. } => "RestartPod",
        Step::PatchConfig { .. } => "PatchConfig",
        Step::LabelReads { .. } => "LabelReads",
        Step::Switchover { .. } => "Switchover",
        Step::SetSettings { .. } => "SetSettings",
        Step::SetUser { .. } => "SetUser",
        Step::DeleteUser { .. } => "DeleteUser",
        Step::LoadLibrary { .. } => "LoadLibrary",
        Step::DeleteLibrary { .. } => "DeleteLibrary",
        Step::SetSentinel { .. } => "SetSentinel",
        Step::ResetSentinel { .. } => "ResetSentinel",
        Step::Repoint { .. } => "Repoint",
        Step::RemoveNode { .. } => "RemoveNode",
    }
}

/// Carries out the steps in order. A step that fails stops only what follows for its own node; one of a user's library stops nothing.
pub async fn carry_out(writer: &Writer, means: Means<'_>, steps: &[Step]) -> Vec<(Step, Ending)> {
    let mut done: Vec<(Step, Ending)> = Vec::new();
    for step in steps {
        let node = step.node();
        let holds_up = |earlier: &Step| earlier.node() == node && !earlier.is_of_users_library();
        let is_blocked = done.iter().any(|(earlier, ending)| holds_up(earlier) && !ending.is_done());
        let ending = if is_blocked {
            Ending::Dropped("an earlier step of this node was not done".to_owned())
        } else {
            one(writer, means, step).await.unwrap_or_else(|error| Ending::of(&error))
        };
        tracing::info!(step = name_of(step), node = %node, ending = ending.word(), detail = ending.detail(), "step");
        done.push((step.clone(), ending));
    }
    done
}

async fn one(writer: &Writer, means: Means<'_>, step: &Step) -> Result<Ending, Error> {
    let namespace = means.layer.namespace.as_str();
    if let Some(expected) = step.expected_epoch()
        && super::switchover::epoch(means).await? != Some(expected)
    {
        return Ok(Ending::Dropped("the Sentinels have moved the primary meanwhile".to_owned()));
    }
    match step {
        Step::ApplyService { node } => {
            let Some(service) = means.services.get(node) else { return Ok(not_built(*node)) };
            let live = means.live_services.get(&service.name_any());
            apply_service(writer, service, live.map(Arc::as_ref)).await
        }
        Step::ApplyWorkload { node, .. } => {
            let Some(workload) = means.workloads.get(node) else { return Ok(not_built(*node)) };
            let live = means.live_workloads.get(node).map(Arc::as_ref);
            if live.is_none() {
                claims::are_ours(writer.client(), workload).await?;
            }
            Ok(applied(&writer.apply(&claims::kept(workload, live), live).await?))
        }
        Step::RestartPod { node, pod_uid, .. } => {
            let pod = names::pod(&means.layer.name, *node);
            writer.delete::<Pod>(namespace, &pod, Some(pod_uid)).await.map(|()| Ending::Done)
        }
        Step::PatchConfig { node, pod_uid, .. } => {
            let Some(document) = means.documents.get(node) else { return Ok(not_built(*node)) };
            let pod = names::pod(&means.layer.name, *node);
            let metadata = json!({"annotations": {names::ANNOTATION_NODE_CONFIG: document}});
            writer
                .annotate::<Pod>(namespace, &pod, pod_uid, metadata, names::MANAGER_OBJECTS)
                .await
                .map(|()| Ending::Done)
        }
        Step::LabelReads { node, pod_uid, reads } => {
            label_reads(writer, means.layer, *node, pod_uid, *reads).await.map(|()| Ending::Done)
        }
        Step::RemoveNode { node, workload_uid, .. } => remove(writer, means, *node, workload_uid.as_deref()).await,
        Step::Switchover { .. } => super::switchover::switch(means, step).await,
        Step::SetSettings { node, run_id, .. }
        | Step::SetUser { node, run_id, .. }
        | Step::DeleteUser { node, run_id, .. }
        | Step::LoadLibrary { node, run_id, .. }
        | Step::DeleteLibrary { node, run_id, .. }
        | Step::SetSentinel { node, run_id }
        | Step::ResetSentinel { node, run_id, .. }
        | Step::Repoint { node, run_id, .. } => {
            let Some(connection) = means.connections.get(node) else {
                return Ok(Ending::Dropped("no connection to the server".to_owned()));
            };
            if !redis::is_process(connection, run_id).await? {
                return Ok(Ending::Dropped("the server was restarted".to_owned()));
            }
            on_server(means, connection, step).await
        }
    }
}

/// Steps on a server whose process is the right one.
async fn on_server(means: Means<'_>, connection: &Connection, step: &Step) -> Result<Ending, Error> {
    let desired = means.desired;
    match step {
        Step::SetSettings { changes, .. } => redis::set_settings(connection, changes).await,
        Step::SetUser { node, user, .. } => {
            let users = match node.kind {
                NodeKind::Data => &desired.users,
                NodeKind::Sentinel => &desired.sentinel_users,
            };
            let Some(rules) = users.get(user) else { return Ok(not_built(*node)) };
            redis::set_user(connection, user, rules).await
        }
        Step::DeleteUser { user, .. } => redis::delete_user(connection, user).await,
        Step::LoadLibrary { node, library, .. } => {
            let Some(library) = means.libraries.iter().find(|known| known.name == *library) else {
                return Ok(not_built(*node));
            };
            read_counters(means, *node, library).await;
            redis::load_library(connection, library).await
        }
        Step::DeleteLibrary { library, .. } => redis::delete_library(connection, library).await,
        Step::SetSentinel { .. } => {
            redis::set_sentinel(connection, &desired.master_name, desired.sentinel_settings).await
        }
        Step::ResetSentinel { .. } => redis::reset_sentinel(connection, &desired.master_name).await,
        Step::Repoint { primary, .. } => redis::repoint(connection, primary).await,
        other => Ok(not_built(other.node())),
    }
}

/// Has the node's agent read the counters of a library that a load sets to zero. An agent that does not answer has read them some
/// seconds ago.
async fn read_counters(means: Means<'_>, node: NodeId, library: &Library) {
    let counts = |kind: &UseKind| kind.words().library == library.name && kind.words().counters.is_some();
    if let Some(endpoint) = means.endpoints.get(&node).filter(|_| UseKind::ALL.iter().any(counts)) {
        let _ = timeout(COUNTERS_WITHIN, answers::counted(&endpoint.address)).await;
    }
}

/// Says of a pod whether the replicas' Service selects it.
pub async fn label_reads(
    writer: &Writer,
    layer: &LayerIdentity,
    node: NodeId,
    pod_uid: &str,
    reads: bool,
) -> Result<(), Error> {
    let pod = names::pod(&layer.name, node);
    let metadata = json!({"labels": {names::LABEL_READS: if reads { "yes" } else { "no" }}});
    writer.annotate::<Pod>(&layer.namespace, &pod, pod_uid, metadata, names::MANAGER_ROLES).await
}

/// Applies a node's Service with the address that it had before. Where somebody else has got that address meanwhile, it gets
/// another, and the node is announced anew.
async fn apply_service(writer: &Writer, service: &Service, live: Option<&Service>) -> Result<Ending, Error> {
    let asks = service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.is_some());
    match writer.apply(service, live).await {
        Err(Error::Request(error)) if asks && live.is_none() && error.class() == Class::Invalid => {
            let mut service = service.clone();
            if let Some(spec) = &mut service.spec {
                spec.cluster_ip = None;
            }
            Ok(applied(&writer.apply(&service, None).await?))
        }
        result => Ok(applied(&result?)),
    }
}

/// Removes a node's StatefulSet (with its pod), and its Service last: the address is needed until the server has stopped.
async fn remove(writer: &Writer, means: Means<'_>, node: NodeId, workload_uid: Option<&str>) -> Result<Ending, Error> {
    let (namespace, name) = (means.layer.namespace.as_str(), names::node(&means.layer.name, node));
    if workload_uid.is_some() {
        writer.delete::<StatefulSet>(namespace, &name, workload_uid).await?;
        return Ok(Ending::Done);
    }
    // The one that was seen, and not what somebody may have made under its name since.
    let Some(uid) = means.live_services.get(&name).and_then(|service| service.uid()) else {
        return Ok(Ending::Dropped("its Service is gone".to_owned()));
    };
    writer.delete::<Service>(namespace, &name, Some(&uid)).await?;
    Ok(Ending::Done)
}

fn not_built(node: NodeId) -> Ending {
    Ending::Dropped(format!("nothing was built for {node}"))
}

fn applied<K>(applied: &Applied<K>) -> Ending {
    match applied {
        Applied::Unchanged | Applied::Written(_) => Ending::Done,
        Applied::Deleting => Ending::Dropped("its predecessor is still being deleted".to_owned()),
    }
}
