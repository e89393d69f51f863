//! The layer's Kubernetes objects, from the watches' memory, in the planner's words.
//!
//! Only what belongs to the layer by UID counts: a predecessor of the same name leaves objects with the same labels behind
//! until Kubernetes has collected them, and those are not this layer's.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};

use crate::api::names;
use crate::model::node_config::NodeConfig;
use crate::model::observed::{Observed, ObservedNode, ObservedPod, ObservedWorkload};
use crate::model::{Address, LayerIdentity, NodeId, NodeKind, PodRole};

/// Label that Kubernetes copies from the node to its pods (1.35 and later; absent before).
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// Of a volume claim it matters only whether it is being deleted.
pub(crate) type ClaimMeta = PartialObjectMeta<PersistentVolumeClaim>;

/// What the watches know, of all layers.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    /// StatefulSets with our labels.
    pub workloads: Store<StatefulSet>,
    /// Services with our labels.
    pub services: Store<Service>,
    /// Pods with our labels.
    pub pods: Store<Pod>,
    /// Disruption budgets with our labels.
    pub budgets: Store<PodDisruptionBudget>,
    /// Volume claims with our labels, by their metadata.
    pub claims: Store<ClaimMeta>,
}

/// The objects of one layer, as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children {
    /// StatefulSets of the layer's nodes.
    pub workloads: BTreeMap<NodeId, Arc<StatefulSet>>,
    /// Pods of the layer's nodes.
    pub pods: BTreeMap<NodeId, Arc<Pod>>,
    pub services: BTreeMap<String, Arc<Service>>,
    pub budgets: BTreeMap<String, Arc<PodDisruptionBudget>>,
    /// Volume claims of data nodes that are being deleted.
    pub ending_claims: BTreeMap<NodeId, String>,
    /// Addresses that the nodes' documents name: what a Service that was deleted gets again.
    pub announced: BTreeMap<NodeId, Address>,
}

/// Picks the layer's objects out of the watches' memory.
pub(crate) fn children(stores: &Stores, layer: &LayerIdentity) -> Children {
    let mut children = Children {
        workloads: by_node(owned(&stores.workloads, layer)),
        pods: by_node(labelled(&stores.pods, layer).into_iter().filter(|pod| is_of(pod, layer)).collect()),
        services: by_name(owned(&stores.services, layer)),
        budgets: by_name(owned(&stores.budgets, layer)),
        ending_claims: ending_claims(&stores.claims, layer),
        announced: BTreeMap::new(),
    };
    children.announced = announced(&children);
    children
}

/// How long it is told that the kernel ended a container: one that is back says nothing of it.
const ENDED_REPORTED_FOR: SignedDuration = SignedDuration::from_mins(10);

impl Children {
    /// The nodes whose container needed more memory than its limit a short while ago, in words.
    pub(crate) fn ended_for_memory(&self, now: Timestamp) -> Vec<(NodeId, String)> {
        let is_told = |pod: &Pod| {
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let ends = containers.flat_map(|container| [&container.state, &container.last_state]);
            ends.filter_map(|state| state.as_ref()?.terminated.as_ref()).any(|ended| {
                let at = ended.finished_at.as_ref().map(|at| at.0);
                ended.reason.as_deref() == Some("OOMKilled")
                    && at.is_some_and(|at| now.duration_since(at) < ENDED_REPORTED_FOR)
            })
        };
        let told = self.pods.iter().filter(|(_, pod)| is_told(pod));
        told.map(|(node, _)| (*node, "the kernel ended its container for want of memory (OOMKilled)".to_owned()))
            .collect()
    }

    /// Everything that Kubernetes says of the layer; the servers are still unknown.
    ///
    /// `is_untouched` says whether a StatefulSet is what our last apply made it; `digest` is the digest of a node-config
    /// document (both belong to other modules).
    pub(crate) fn observed(
        &self,
        layer: &LayerIdentity,
        at: u64,
        is_untouched: impl Fn(&StatefulSet) -> bool,
        digest: impl Fn(&str) -> String,
    ) -> Observed {
        let mut nodes: BTreeMap<NodeId, ObservedNode> = BTreeMap::new();
        for (&node, workload) in &self.workloads {
            nodes.entry(node).or_default().workload = Some(observed_workload(workload, is_untouched(workload)));
        }
        for (&node, pod) in &self.pods {
            nodes.entry(node).or_default().pod = Some(observed_pod(pod, &digest));
        }
        for (node, seen) in &mut nodes {
            seen.unlabelled_pod = self.unlabelled_pod(*node);
            seen.ending_claim = self.ending_claims.get(node).cloned();
        }
        for service in self.services.values() {
            if let (Some(node), Some(address)) = (node_of(service.as_ref()), cluster_ip(service)) {
                nodes.entry(node).or_default().address = Some(Address(address.to_owned()));
            }
        }
        let initialised = self
            .workloads
            .values()
            .any(|workload| annotation(workload.as_ref(), names::ANNOTATION_INITIALISED) == Some("true"))
            || self.pods.values().any(|pod| document(pod.as_ref()).is_some_and(|config| config.initialised));
        let primary_service_version =
            self.services.get(&names::primary_service(&layer.name)).and_then(|service| service.resource_version());
        Observed {
            at,
            nodes,
            primary_service: self.primary_service(layer),
            primary_service_version,
            handover: false,
            initialised,
            recorded: initialised,
        }
    }

    /// UID of a node's pod, if it has not the labels of its StatefulSet by which it is found.
    fn unlabelled_pod(&self, node: NodeId) -> Option<String> {
        let (pod, workload) = (self.pods.get(&node)?, self.workloads.get(&node)?);
        let labels = pod.metadata.labels.as_ref()?;
        let is_there = |(label, value): (&String, &String)| labels.get(label) == Some(value);
        let is_whole = names::finding_labels(&workload.metadata).iter().all(is_there);
        pod.uid().filter(|_| !is_whole && pod.metadata.deletion_timestamp.is_none())
    }

    /// The data node whose pod the primary's Service selects.
    fn primary_service(&self, layer: &LayerIdentity) -> Option<NodeId> {
        let service = self.services.get(&names::primary_service(&layer.name))?;
        let pod = service.spec.as_ref()?.selector.as_ref()?.get(names::LABEL_POD_NAME)?;
        let ordinal = pod.strip_prefix(&format!("{}-redis-", layer.name))?.strip_suffix("-0")?;
        ordinal.parse().ok().map(NodeId::data)
    }

    /// Address of a pod, if it has one: where its server is asked.
    pub(crate) fn pod_address(&self, node: NodeId) -> Option<String> {
        self.pods.get(&node)?.status.as_ref()?.pod_ip.clone().filter(|address| !address.is_empty())
    }

    /// The layer's resolved defaults, which each StatefulSet keeps as an annotation. What most of them say counts: one that
    /// was edited is outvoted, and mended.
    pub(crate) fn resolved_defaults(&self) -> Option<&str> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for text in self
            .workloads
            .values()
            .filter_map(|workload| annotation(workload.as_ref(), names::ANNOTATION_RESOLVED_DEFAULTS))
        {
            *votes.entry(text).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(text, _)| text)
    }
}

fn labelled<K>(store: &Store<K>, layer: &LayerIdentity) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| {
        object.meta().namespace.as_deref() == Some(&layer.namespace)
            && label(object, names::LABEL_LAYER) == Some(&layer.name)
    })
}

fn owned<K>(store: &Store<K>, layer: &LayerIdentity) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    K::DynamicType: Eq + Hash,
{
    let is_ours = |object: &Arc<K>| {
        let owners = object.meta().owner_references.as_deref().unwrap_or_default();
        owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == layer.uid)
    };
    labelled(store, layer).into_iter().filter(is_ours).collect()
}

/// The claims that the layer's pods mount: one that only has their labels is another's. They outlive layers, so none names an owner.
fn ending_claims(store: &Store<ClaimMeta>, layer: &LayerIdentity) -> BTreeMap<NodeId, String> {
    let is_ending = |claim: &&Arc<ClaimMeta>| claim.metadata.deletion_timestamp.is_some();
    let of_node = |claim: &Arc<ClaimMeta>| {
        let node = node_of(claim.as_ref()).filter(|node| node.kind == NodeKind::Data)?;
        (claim.name_any() == names::volume_claim(&layer.name, node)).then(|| (node, claim.name_any()))
    };
    labelled(store, layer).iter().filter(is_ending).filter_map(of_node).collect()
}

/// A pod is the layer's if its document says so: pods belong to StatefulSets, which may have been deleted and come back.
pub(crate) fn is_of(pod: &Pod, layer: &LayerIdentity) -> bool {
    document(pod).is_some_and(|config| config.layer.uid == layer.uid)
}

fn by_name<K: Resource<DynamicType = ()>>(objects: Vec<Arc<K>>) -> BTreeMap<String, Arc<K>> {
    objects.into_iter().map(|object| (object.name_any(), object)).collect()
}

fn by_node<K: Resource<DynamicType = ()>>(objects: Vec<Arc<K>>) -> BTreeMap<NodeId, Arc<K>> {
    objects.into_iter().filter_map(|object| Some((node_of(object.as_ref())?, object))).collect()
}

/// The node that an object belongs to, by its label.
fn node_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<NodeId> {
    let (kind, ordinal) = label(object, names::LABEL_NODE)?.rsplit_once('-')?;
    let kind = match kind {
        "redis" => NodeKind::Data,
        "sentinel" => NodeKind::Sentinel,
        _ => return None,
    };
    Some(NodeId { kind, ordinal: ordinal.parse().ok()? })
}

fn label<'object, K: Resource<DynamicType = ()>>(object: &'object K, name: &str) -> Option<&'object str> {
    object.meta().labels.as_ref()?.get(name).map(String::as_str)
}

fn annotation<'object, K: Resource<DynamicType = ()>>(object: &'object K, name: &str) -> Option<&'object str> {
    object.meta().annotations.as_ref()?.get(name).map(String::as_str)
}

/// The node-config document of a pod; `None` if it has none that we understand.
fn document(pod: &Pod) -> Option<NodeConfig> {
    serde_json::from_str(annotation(pod, names::ANNOTATION_NODE_CONFIG)?).ok()
}

/// The fixed address of a Service, if it has one.
fn cluster_ip(service: &Service) -> Option<&str> {
    let address = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!address.is_empty() && address != "None").then_some(address)
}

/// Every address that a document of this layer's names, the newest pods' last word.
fn announced(children: &Children) -> BTreeMap<NodeId, Address> {
    let templates = children.workloads.values().filter_map(|workload| {
        let metadata = workload.spec.as_ref()?.template.metadata.as_ref()?;
        serde_json::from_str::<NodeConfig>(metadata.annotations.as_ref()?.get(names::ANNOTATION_NODE_CONFIG)?).ok()
    });
    let pods = children.pods.values().filter_map(|pod| document(pod.as_ref()));
    let mut announced = BTreeMap::new();
    for config in templates.chain(pods) {
        let of_shards = config.cluster.into_iter().flat_map(|cluster| cluster.nodes);
        let data_nodes = config.data_nodes.into_iter().chain(of_shards);
        announced.extend(data_nodes.map(|(ordinal, address)| (NodeId::data(ordinal), address)));
        announced.extend(config.sentinels.into_iter().map(|(ordinal, address)| (NodeId::sentinel(ordinal), address)));
    }
    announced
}

fn observed_workload(workload: &StatefulSet, is_untouched: bool) -> ObservedWorkload {
    let text = |name| annotation(workload, name).unwrap_or_default().to_owned();
    ObservedWorkload {
        uid: workload.uid().unwrap_or_default(),
        workload_digest: if is_untouched { text(names::ANNOTATION_DIGEST) } else { String::new() },
        restart_revision: text(names::ANNOTATION_RESTART_REVISION),
        restarts: restarts(workload.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref())),
        deleting: workload.metadata.deletion_timestamp.is_some(),
    }
}

fn observed_pod(pod: &Pod, digest: impl Fn(&str) -> String) -> ObservedPod {
    ObservedPod {
        uid: pod.uid().unwrap_or_default(),
        restart_revision: annotation(pod, names::ANNOTATION_RESTART_REVISION).unwrap_or_default().to_owned(),
        restarts: restarts(Some(&pod.metadata)),
        config_digest: annotation(pod, names::ANNOTATION_NODE_CONFIG).map(digest).unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        ready: condition(pod, "Ready").is_some_and(|(status, _, _)| status == "True"),
        trouble: trouble(pod),
        kubernetes_node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        zone: label(pod, LABEL_ZONE).map(str::to_owned),
        reads: label(pod, names::LABEL_READS) == Some("yes"),
        role: label(pod, names::LABEL_ROLE).and_then(PodRole::of_word),
    }
}

/// The restarts that a person asked for.
fn restarts(metadata: Option<&ObjectMeta>) -> BTreeMap<String, String> {
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    let of = |name: &str| Some((name.to_owned(), annotations?.get(name)?.clone()));
    [names::ANNOTATION_RESTARTED_AT, names::ANNOTATION_ROLLOUT_RESTART].into_iter().filter_map(of).collect()
}

/// Status, reason and message of a pod's condition.
fn condition<'pod>(pod: &'pod Pod, name: &str) -> Option<(&'pod str, &'pod str, &'pod str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == name)?;
    let text = |field: &'pod Option<String>| field.as_deref().unwrap_or_default();
    Some((&condition.status, text(&condition.reason), text(&condition.message)))
}

/// Reasons of waiting that are no trouble, only a matter of time.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a pod does not run, in Kubernetes' words.
fn trouble(pod: &Pod) -> Option<String> {
    let words = |reason: &str, message: &str| {
        if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
    };
    if let Some(("False", reason, message)) = condition(pod, "PodScheduled") {
        return Some(words(reason, message));
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed") {
        return Some(words(
            status.reason.as_deref().unwrap_or("Failed"),
            status.message.as_deref().unwrap_or_default(),
        ));
    }
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?))).find_map(
        |(container, waiting)| {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let is_trouble = !reason.is_empty() && !STARTING.contains(&reason);
            let message = last_words(container).or(waiting.message.as_deref()).unwrap_or_default();
            is_trouble.then(|| words(reason, message))
        },
    )
}

/// What the container that ended last said at its end (`terminationMessagePath`): the agent writes why it gave up.
fn last_words(container: &ContainerStatus) -> Option<&str> {
    let message = container.last_state.as_ref()?.terminated.as_ref()?.message.as_deref()?.trim();
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer() -> LayerIdentity {
        LayerIdentity { uid: "uid-1".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    fn metadata(node: &str, owner: &str) -> serde_json::Value {
        json!({
            "name": format!("web-{node}"), "namespace": "shop", "uid": "object",
            "labels": {"redoubt.dev/layer": "web", "redoubt.dev/node": node},
            "ownerReferences": [{"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "name": "web", "uid": owner, "controller": true}],
        })
    }

    fn stores(services: Vec<Service>) -> Stores {
        let (workloads, _) = kube::runtime::reflector::store();
        let (pods, _) = kube::runtime::reflector::store();
        let (budgets, _) = kube::runtime::reflector::store();
        let (store, mut writer) = kube::runtime::reflector::store();
        for service in services {
            writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(service));
        }
        let (claims, _) = kube::runtime::reflector::store();
        Stores { workloads, services: store, pods, budgets, claims }
    }

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_container_that_the_kernel_ended_for_memory_is_reported_for_ten_minutes_though_it_is_back() {
        let pod = |field: &str, reason: &str| -> Pod {
            let ended = json!({"exitCode": 137, "reason": reason, "finishedAt": "2026-01-01T00:00:00Z"});
            serde_json::from_value(
                json!({"status": {"containerStatuses": [{"name": "redis", "image": "", "imageID": "",
                "ready": true, "restartCount": 1, field: {"terminated": ended}}]}}),
            )
            .unwrap()
        };
        let pods = [pod("lastState", "OOMKilled"), pod("state", "OOMKilled"), pod("lastState", "Error")];
        let pods = (0..).map(NodeId::data).zip(pods.map(Arc::new)).collect();
        let children = Children { pods, ..Children::default() };
        let told = |at: &str| children.ended_for_memory(at.parse().unwrap());
        let nodes = told("2026-01-01T00:09:59Z").into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        assert_eq!(nodes, [NodeId::data(0), NodeId::data(1)]);
        assert_eq!(told("2026-01-01T00:10:00Z"), []);
    }

    #[test]
    fn a_predecessors_objects_are_not_the_layers() {
        let spec = json!({"clusterIP": "10.0.0.1"});
        let stores = stores(vec![
            service(json!({"metadata": metadata("redis-0", "uid-1"), "spec": spec})),
            service(json!({"metadata": metadata("redis-1", "uid-0"), "spec": spec})),
        ]);
        let observed = children(&stores, &layer()).observed(&layer(), 7, |_| true, str::to_owned);
        let nodes: Vec<_> = observed.nodes.keys().copied().collect();
        assert_eq!(nodes, [NodeId::data(0)]);
        assert_eq!(observed.nodes[&NodeId::data(0)].address, Some(Address("10.0.0.1".to_owned())));
    }

    #[test]
    fn the_primary_service_names_the_node_that_its_pod_belongs_to() {
        let mut meta = metadata("redis", "uid-1");
        meta["labels"] = json!({"redoubt.dev/layer": "web"});
        meta["name"] = json!("web-redis");
        let selector = json!({"selector": {"statefulset.kubernetes.io/pod-name": "web-redis-12-0"}});
        let stores = stores(vec![service(json!({"metadata": meta, "spec": selector}))]);
        let observed = children(&stores, &layer()).observed(&layer(), 7, |_| true, str::to_owned);
        assert_eq!(observed.primary_service, Some(NodeId::data(12)));
        assert!(observed.nodes.is_empty());
    }

    #[test]
    fn trouble_is_reported_in_kubernetes_words_and_starting_is_no_trouble() {
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
        };
        let waiting = |reason: &str| {
            pod(
                json!({"containerStatuses": [{"name": "redis", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": "no such image"}}}]}),
            )
        };
        assert_eq!(trouble(&waiting("ImagePullBackOff")).as_deref(), Some("ImagePullBackOff: no such image"));
        assert_eq!(trouble(&waiting("ContainerCreating")), None);
        let mut ended = waiting("CrashLoopBackOff");
        let container = &mut ended.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
        container.last_state = serde_json::from_value(
            json!({"terminated": {"exitCode": 1, "message": "this image is neither Redis nor Valkey\n"}}),
        )
        .unwrap();
        assert_eq!(trouble(&ended).as_deref(), Some("CrashLoopBackOff: this image is neither Redis nor Valkey"));
        let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]});
        assert_eq!(trouble(&pod(unschedulable)).as_deref(), Some("Unschedulable: 0/3 nodes"));
    }
}
