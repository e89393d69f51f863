//! Which nodes are away, since when, and what Kubernetes says of it. Memory only: after a start everything begins again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::{Client, ResourceExt as _};

use crate::api::names;
use crate::failure::request;
use crate::model::observed::{Observed, ObservedNode, ObservedServer, UnavailableNode};
use crate::model::{LayerIdentity, NodeId};
use crate::observe::kubernetes::{Children, is_of};
use crate::observe::refusals::{self, About};
use crate::per_object::PerObject;
use crate::telemetry::Chain;

/// How long a node has been away before Kubernetes is asked why. Most pods are made and started sooner.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// The same for a pod that is there: volumes are attached and images pulled meanwhile.
const ASK_AFTER_START: Duration = Duration::from_secs(15);
/// Pause between two questions about the same node.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// An absence that begins this long after a step of ours at the latest is that step's doing.
const STEP_SHOWS: Duration = Duration::from_secs(15);

/// Since when a node is away, and whether a step of ours began it.
#[derive(Clone, Debug)]
struct Absence {
    since: Instant,
    planned: bool,
    asked: Option<Instant>,
    words: Option<String>,
}

impl Absence {
    /// Whether it lasts, and Kubernetes was not asked a short while ago.
    fn is_to_be_asked_about(&self) -> bool {
        self.since.elapsed() >= ASK_AFTER && self.asked.is_none_or(|asked| asked.elapsed() >= RETRY_AFTER)
    }
}

/// The absences of all layers' nodes.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    /// By the StatefulSet's UID.
    away: PerObject<Absence>,
    /// When we took a node away ourselves, by the StatefulSet's UID.
    taken: PerObject<Instant>,
}

impl Absences {
    /// Notes that a step of ours takes a node away.
    pub(crate) fn taken(&self, workload_uid: &str) {
        self.taken.insert(workload_uid, Instant::now());
    }

    /// Says of each node in `observed` since when it is away, and asks Kubernetes about those that stay so.
    pub(crate) async fn note_unavailable(
        &self,
        client: &Client,
        layer: &LayerIdentity,
        children: &Children,
        observed: &mut Observed,
    ) {
        for (node, seen) in &mut observed.nodes {
            let Some(uid) = seen.workload.as_ref().map(|workload| workload.uid.clone()) else { continue };
            if is_there(seen) {
                self.away.remove(&uid);
                continue;
            }
            let absence = self.note(&uid);
            if seen.pod.is_none() && absence.is_to_be_asked_about() {
                seen.unlabelled_pod = unlabelled_pod(client, layer, *node).await;
            }
            let words = match object_to_ask_about(*node, seen, children, absence.since.elapsed()) {
                Some(about) => self.words(client, layer, &uid, &about, absence.clone()).await,
                None => None,
            };
            seen.away =
                Some(UnavailableNode { seconds: absence.since.elapsed().as_secs(), planned: absence.planned, words });
        }
    }

    /// The absence of a node that is away now.
    fn note(&self, uid: &str) -> Absence {
        let planned = self.taken.get(uid).is_some_and(|taken| taken.elapsed() < STEP_SHOWS);
        let begun = || Absence { since: Instant::now(), planned, asked: None, words: None };
        self.away.lock().entry(uid.to_owned()).or_insert_with(begun).clone()
    }

    /// What Kubernetes says, asked for once in a while.
    async fn words(
        &self,
        client: &Client,
        layer: &LayerIdentity,
        uid: &str,
        about: &About,
        absence: Absence,
    ) -> Option<String> {
        if absence.asked.is_some_and(|asked| asked.elapsed() < RETRY_AFTER) {
            return absence.words;
        }
        let words = match refusals::words(client, &layer.namespace, about).await {
            Ok(words) => words,
            Err(error) => {
                tracing::debug!(layer = layer.name, error = %Chain(&error), "cannot ask why a pod is not there");
                absence.words
            }
        };
        if let Some(known) = self.away.lock().get_mut(uid) {
            (known.asked, known.words) = (Some(Instant::now()), words.clone());
        }
        words
    }

    /// Forgets nodes that are gone.
    pub(crate) fn retain(&self, alive: &BTreeSet<String>) {
        self.away.retain(|uid| alive.contains(uid));
        self.taken.retain(|uid| alive.contains(uid));
    }
}

/// Whether a node's pod is ready.
fn is_there(seen: &ObservedNode) -> bool {
    seen.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting)
}

/// The object whose events say why a node is away; `None`: it is too early to ask, or the pod itself says it.
fn object_to_ask_about(node: NodeId, seen: &ObservedNode, children: &Children, away: Duration) -> Option<About> {
    match &seen.pod {
        None => (away >= ASK_AFTER).then(|| seen.workload.as_ref().map(|workload| About::Uid(workload.uid.clone())))?,
        // The scheduler names the claims at large; what is wrong with one is said of the claim.
        Some(pod) if pod.trouble.as_ref().is_some_and(|trouble| trouble.contains("PersistentVolumeClaim")) => {
            (away >= ASK_AFTER).then(|| claim_of(children.pods.get(&node)?).map(About::Claim))?
        }
        Some(pod) => {
            let is_starting = seen.server == ObservedServer::Unknown && pod.trouble.is_none() && !pod.deleting;
            let never_started = children.pods.get(&node).is_some_and(|pod| !has_started(pod));
            (away >= ASK_AFTER_START && is_starting && never_started).then(|| About::Uid(pod.uid.clone()))
        }
    }
}

/// UID of a node's pod of which the watch knows nothing, because someone changed its labels.
async fn unlabelled_pod(client: &Client, layer: &LayerIdentity, node: NodeId) -> Option<String> {
    let (api, name) = (Api::<Pod>::namespaced(client.clone(), &layer.namespace), names::pod(&layer.name, node));
    match request("read", &format!("Pod {}/{name}", layer.namespace), api.get_opt(&name)).await {
        Ok(found) => found.filter(|pod| is_of(pod, layer) && pod.metadata.deletion_timestamp.is_none())?.uid(),
        Err(error) => {
            tracing::debug!(layer = layer.name, error = %Chain(&error), "cannot ask for a pod that is not there");
            None
        }
    }
}

/// Name of the volume claim of a pod.
fn claim_of(pod: &Pod) -> Option<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref()).map(|claim| claim.claim_name.clone()).next()
}

/// Whether any container of a pod has ever run.
fn has_started(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let has_run =
        |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some() || state.terminated.is_some();
    containers.into_iter().any(|container| {
        container.state.as_ref().is_some_and(has_run) || container.last_state.as_ref().is_some_and(has_run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_keeps_its_beginning_and_is_planned_only_where_a_step_of_ours_went_before() {
        let absences = Absences::default();
        let first = absences.note("one");
        absences.taken("one");
        assert!(!absences.note("one").planned, "it was away before");
        assert_eq!(absences.note("one").since, first.since);
        absences.taken("two");
        assert!(absences.note("two").planned);
        absences.retain(&BTreeSet::from(["two".to_owned()]));
        assert!(absences.note("one").since > first.since, "it is another absence");
    }
}
