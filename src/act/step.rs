//! One step of a plan, carried out: which resources it needs, and how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::timeout;

use super::kube::{Applied, Writer};
use super::load_time::LoadTimer;
use super::switchover::Handover;
use super::{Error, StepOutcome, StepResources, claims, redis};
use crate::answers;
use crate::api::names;
use crate::dataplane::Library;
use crate::failure::Class;
use crate::model::function_library::{SLOW_LOAD, is_users_library};
use crate::model::{LayerIdentity, NodeId, NodeKind, PodRole, UseKind};
use crate::plan::Step;
use crate::redis::Connection;

/// How long a load of a library waits for its counters to be read.
const COUNTERS_WITHIN: Duration = Duration::from_millis(600);

/// The step's name, as a metric label.
pub const fn name_of(step: &Step) -> &'static str {
    match step {
        Step::ApplyService { .. } => "ApplyService",
        Step::ApplyWorkload { .. } => "ApplyWorkload",
        Step::RestartPod { .. } => "RestartPod",
        Step::PatchConfig { .. } => "PatchConfig",
        Step::PointService { .. } => "PointService",
        Step::LabelPod { .. } => "LabelPod",
        Step::RelabelPod { .. } => "RelabelPod",
        Step::Switchover { .. } => "Switchover",
        Step::SetSettings { .. } => "SetSettings",
        Step::SetUser { .. } => "SetUser",
        Step::DeleteUser { .. } => "DeleteUser",
        Step::LoadLibrary { .. } => "LoadLibrary",
        Step::DeleteLibrary { .. } => "DeleteLibrary",
        Step::SetSentinel { .. } => "SetSentinel",
        Step::ResetSentinel { .. } => "ResetSentinel",
        Step::Repoint { .. } => "Repoint",
        Step::AddSlots { .. } => "AddSlots",
        Step::ForgetMember { .. } => "ForgetMember",
        Step::RemoveNode { .. } => "RemoveNode",
    }
}

/// What came of the steps of a plan.
#[derive(Debug, Default)]
pub struct PlanOutcome {
    /// The steps that ended, and how.
    pub outcomes: Vec<(Step, StepOutcome)>,
    /// The move of the primary, which is to be carried out next to the passes.
    pub handover: Option<(Step, Handover)>,
    /// What servers spent on the loads of users' libraries, by library.
    pub load_times: BTreeMap<String, Duration>,
}

impl PlanOutcome {
    /// Why a step has to wait for the next plan, which follows what came of the ones before it.
    fn obstacle(&self, step: &Step) -> Option<&'static str> {
        let is_apart = |earlier: &Step| earlier.is_of_users_library() || matches!(earlier, Step::PointService { .. });
        let holds_up = |earlier: &Step| earlier.node() == step.node() && !is_apart(earlier);
        if self.outcomes.iter().any(|(earlier, outcome)| holds_up(earlier) && !outcome.is_done()) {
            return Some("an earlier step of this node was not done");
        }
        let is_slow = || self.load_times.values().any(|spent| *spent >= SLOW_LOAD);
        (loaded_of_user(step).is_some() && is_slow()).then_some("another library took long to load")
    }
}

/// Carries out the steps in order. A step that fails stops only what follows for its own node; one of a user's library and one of the
/// primary's Service stop nothing. After a user's library that held its server up, no other is loaded.
pub async fn carry_out(writer: &Writer, resources: StepResources<'_>, steps: &[Step]) -> PlanOutcome {
    let mut plan_outcome = PlanOutcome::default();
    for step in steps {
        let outcome = if let Some(obstacle) = plan_outcome.obstacle(step) {
            StepOutcome::Dropped(obstacle.to_owned())
        } else {
            let library = loaded_of_user(step);
            let timer = match library.and_then(|_| resources.connections.get(&step.node())) {
                Some(connection) => Some(LoadTimer::begin(connection).await),
                None => None,
            };
            let progress = one(writer, resources, step).await;
            if let (Some(library), Some(timer)) = (library, timer) {
                plan_outcome.load_times.insert(library.clone(), timer.end().await);
            }
            match progress.unwrap_or_else(|error| StepProgress::Ended(StepOutcome::of(&error))) {
                StepProgress::Ended(outcome) => outcome,
                StepProgress::UnderWay(handover) => {
                    plan_outcome.handover = Some((step.clone(), *handover));
                    continue;
                }
            }
        };
        log_outcome(step, &outcome);
        plan_outcome.outcomes.push((step.clone(), outcome));
    }
    plan_outcome
}

/// The library that a step loads, if it is a user's.
fn loaded_of_user(step: &Step) -> Option<&String> {
    match step {
        Step::LoadLibrary { library, .. } => is_users_library(library).then_some(library),
        _ => None,
    }
}

/// Writes the end of a step to the log.
pub fn log_outcome(step: &Step, outcome: &StepOutcome) {
    tracing::info!(step = name_of(step), node = %step.node(), ending = outcome.word(), detail = outcome.detail(), "step");
}

/// A step that was begun.
enum StepProgress {
    Ended(StepOutcome),
    UnderWay(Box<Handover>),
}

impl From<StepOutcome> for StepProgress {
    fn from(outcome: StepOutcome) -> Self {
        Self::Ended(outcome)
    }
}

async fn one(writer: &Writer, resources: StepResources<'_>, step: &Step) -> Result<StepProgress, Error> {
    if let Some(expected) = step.expected_epoch()
        && super::switchover::epoch(resources).await? != Some(expected)
    {
        return Ok(StepOutcome::Dropped("the Sentinels have moved the primary meanwhile".to_owned()).into());
    }
    if let Step::Switchover { .. } = step {
        return Ok(match Handover::prepare(resources, step) {
            Ok(handover) => StepProgress::UnderWay(Box::new(handover)),
            Err(outcome) => StepProgress::Ended(outcome),
        });
    }
    at_once(writer, resources, step).await.map(StepProgress::Ended)
}

/// A step that needs one request.
async fn at_once(writer: &Writer, resources: StepResources<'_>, step: &Step) -> Result<StepOutcome, Error> {
    let namespace = resources.layer.namespace.as_str();
    match step {
        Step::ApplyService { node } => {
            let Some(service) = resources.services.get(node) else { return Ok(not_built(*node)) };
            let live = resources.live_services.get(&service.name_any());
            apply_service(writer, service, live.map(Arc::as_ref)).await
        }
        Step::ApplyWorkload { node, .. } => {
            let Some(workload) = resources.workloads.get(node) else { return Ok(not_built(*node)) };
            let live = resources.live_workloads.get(node).map(Arc::as_ref);
            if live.is_none() {
                claims::are_ours(writer.client(), workload).await?;
            }
            Ok(applied(&writer.apply(&claims::kept(workload, live), live).await?))
        }
        Step::RestartPod { node, pod_uid, ends_claim, .. } => {
            let has_data = node.kind == NodeKind::Data;
            if has_data && !ends_claim && claims::is_being_deleted(writer.client(), resources.layer, *node).await? {
                return Ok(StepOutcome::Dropped("its volume claim is being deleted".to_owned()));
            }
            let pod = names::pod(&resources.layer.name, *node);
            writer.delete::<Pod>(namespace, &pod, Some(pod_uid)).await.map(|()| StepOutcome::Done)
        }
        Step::PatchConfig { node, pod_uid, .. } => {
            let Some(document) = resources.documents.get(node) else { return Ok(not_built(*node)) };
            let pod = names::pod(&resources.layer.name, *node);
            let metadata = json!({"annotations": {names::ANNOTATION_NODE_CONFIG: document}});
            writer
                .annotate::<Pod>(namespace, &pod, pod_uid, metadata, names::MANAGER_OBJECTS)
                .await
                .map(|()| StepOutcome::Done)
        }
        Step::PointService { node, version } => {
            let service = resources.primary_service;
            let live = resources.live_services.get(&service.name_any()).map(Arc::as_ref);
            point_service(writer, resources.layer, service, live, *node, version.as_deref()).await
        }
        Step::LabelPod { node, pod_uid, reads, role } => {
            label_pod(writer, resources.layer, *node, pod_uid, *reads, *role).await.map(|()| StepOutcome::Done)
        }
        Step::RelabelPod { node, pod_uid } => {
            let Some(workload) = resources.workloads.get(node) else { return Ok(not_built(*node)) };
            let pod = names::pod(&resources.layer.name, *node);
            let metadata = json!({"labels": names::finding_labels(&workload.metadata)});
            writer
                .annotate::<Pod>(namespace, &pod, pod_uid, metadata, names::MANAGER_OBJECTS)
                .await
                .map(|()| StepOutcome::Done)
        }
        Step::RemoveNode { node, workload_uid, .. } => remove(writer, resources, *node, workload_uid.as_deref()).await,
        Step::Switchover { from, .. } => Ok(not_built(*from)),
        Step::SetSettings { node, run_id, .. }
        | Step::SetUser { node, run_id, .. }
        | Step::DeleteUser { node, run_id, .. }
        | Step::LoadLibrary { node, run_id, .. }
        | Step::DeleteLibrary { node, run_id, .. }
        | Step::SetSentinel { node, run_id }
        | Step::ResetSentinel { node, run_id, .. }
        | Step::AddSlots { node, run_id, .. }
        | Step::ForgetMember { node, run_id, .. }
        | Step::Repoint { node, run_id, .. } => {
            let Some(connection) = resources.connections.get(node) else {
                return Ok(StepOutcome::Dropped("no connection to the server".to_owned()));
            };
            if !redis::is_process(connection, run_id).await? {
                return Ok(StepOutcome::Dropped("the server was restarted".to_owned()));
            }
            on_server(resources, connection, step).await
        }
    }
}

/// Steps on a server whose process is the right one.
async fn on_server(resources: StepResources<'_>, connection: &Connection, step: &Step) -> Result<StepOutcome, Error> {
    let desired = resources.desired;
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
            let Some(library) = resources.libraries.iter().find(|known| known.name == *library) else {
                return Ok(not_built(*node));
            };
            read_counters(resources, *node, library).await;
            redis::load_library(connection, library).await
        }
        Step::DeleteLibrary { library, .. } => redis::delete_library(connection, library).await,
        Step::SetSentinel { .. } => {
            redis::set_sentinel(connection, &desired.master_name, desired.sentinel_settings).await
        }
        Step::ResetSentinel { .. } => redis::reset_sentinel(connection, &desired.master_name).await,
        Step::Repoint { primary, .. } => redis::repoint(connection, primary).await,
        Step::AddSlots { slots, .. } => redis::add_slots(connection, slots).await,
        Step::ForgetMember { gone, .. } => redis::forget(connection, gone).await,
        other => Ok(not_built(other.node())),
    }
}

/// Points the primary's Service, as `built` has it otherwise, at the pod of a node: the very version of it that was seen.
pub(crate) async fn point_service(
    writer: &Writer,
    layer: &LayerIdentity,
    built: &Service,
    live: Option<&Service>,
    node: NodeId,
    version: Option<&str>,
) -> Result<StepOutcome, Error> {
    if live.and_then(|live| live.metadata.resource_version.as_deref()) != version {
        return Ok(StepOutcome::Dropped("the Service is not the one that was seen".to_owned()));
    }
    let mut service = built.clone();
    let selector = service.spec.get_or_insert_default().selector.get_or_insert_default();
    selector.insert(names::LABEL_POD_NAME.to_owned(), names::pod(&layer.name, node));
    Ok(applied(&writer.apply_as_seen(&service, live).await?))
}

/// Has the node's agent read the counters of a library that a load sets to zero. An agent that does not answer has read them some
/// seconds ago.
async fn read_counters(resources: StepResources<'_>, node: NodeId, library: &Library) {
    let counts = |kind: &UseKind| kind.words().library == library.name && kind.words().counters.is_some();
    if let Some(endpoint) = resources.endpoints.get(&node).filter(|_| UseKind::ALL.iter().any(counts)) {
        let _ = timeout(COUNTERS_WITHIN, answers::counted(&endpoint.address)).await;
    }
}

/// Says of a pod which role it has, and whether the replicas' Service selects it.
pub(crate) async fn label_pod(
    writer: &Writer,
    layer: &LayerIdentity,
    node: NodeId,
    pod_uid: &str,
    reads: Option<bool>,
    role: Option<PodRole>,
) -> Result<(), Error> {
    let pod = names::pod(&layer.name, node);
    // `null` takes a label away.
    let mut labels = json!({names::LABEL_ROLE: role.map(PodRole::word)});
    if let Some(reads) = reads {
        labels[names::LABEL_READS] = json!(if reads { "yes" } else { "no" });
    }
    let metadata = json!({"labels": labels});
    writer.annotate::<Pod>(&layer.namespace, &pod, pod_uid, metadata, names::MANAGER_ROLES).await
}

/// Applies a node's Service with the address that it had before. Where another process has got that address meanwhile, it gets
/// another, and the node is announced again.
async fn apply_service(writer: &Writer, service: &Service, live: Option<&Service>) -> Result<StepOutcome, Error> {
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
async fn remove(
    writer: &Writer,
    resources: StepResources<'_>,
    node: NodeId,
    workload_uid: Option<&str>,
) -> Result<StepOutcome, Error> {
    let (namespace, name) = (resources.layer.namespace.as_str(), names::node(&resources.layer.name, node));
    if workload_uid.is_some() {
        writer.delete::<StatefulSet>(namespace, &name, workload_uid).await?;
        return Ok(StepOutcome::Done);
    }
    // The one that was seen, and not what may have been made under its name since.
    let Some(uid) = resources.live_services.get(&name).and_then(|service| service.uid()) else {
        return Ok(StepOutcome::Dropped("its Service is gone".to_owned()));
    };
    writer.delete::<Service>(namespace, &name, Some(&uid)).await?;
    Ok(StepOutcome::Done)
}

fn not_built(node: NodeId) -> StepOutcome {
    StepOutcome::Dropped(format!("nothing was built for {node}"))
}

fn applied<K>(applied: &Applied<K>) -> StepOutcome {
    match applied {
        Applied::Unchanged | Applied::Written(_) => StepOutcome::Done,
        Applied::Deleting => StepOutcome::Dropped("its predecessor is still being deleted".to_owned()),
    }
}
