//! What the operator sees of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redoubt::model::observed::{
    DataServer, Observed, ObservedNode, ObservedPod, ObservedServer, ObservedWorkload, Replication, SentinelMaster,
    SentinelServer, UnavailableNode,
};
use redoubt::model::{NodeId, NodeKind, Offset};

use super::{DETECTION, Data, FAILOVER_TIMEOUT, FIRST_BAD_REVISION, Pod, Sentinel, SentinelView, Server, World};

impl World {
    pub fn observed(&self) -> Observed {
        let ids: BTreeSet<NodeId> =
            self.services.keys().chain(self.workloads.keys()).chain(self.pods.keys()).copied().collect();
        let node = |id: NodeId| ObservedNode {
            address: self.services.get(&id).cloned(),
            workload: self.workloads.get(&id).map(|workload| ObservedWorkload {
                uid: workload.uid.clone(),
                workload_digest: if workload.edited { String::new() } else { workload.built.digest() },
                restart_revision: workload.built.revision.to_string(),
                restarts: workload.restarts.clone(),
                deleting: workload.deleting,
            }),
            pod: self.pods.get(&id).map(|pod| self.observed_pod(id, pod)),
            unlabelled_pod: None,
            ending_claim: None,
            away: self
                .away_since
                .get(&id)
                .map(|since| UnavailableNode { seconds: self.time - since, ..UnavailableNode::default() }),
            server: if self.mute.contains(&id) { ObservedServer::Unknown } else { self.observed_server(id) },
            loads_nothing: false,
            aside: None,
        };
        Observed {
            at: self.time * 1000,
            nodes: ids.into_iter().map(|id| (id, node(id))).collect(),
            primary_service: self.primary_service,
            handover: false,
            primary_service_version: self.primary_service.map(|primary| primary.to_string()),
            initialised: self.was_ready,
            recorded: self.was_ready,
        }
    }

    fn observed_pod(&self, id: NodeId, pod: &Pod) -> ObservedPod {
        ObservedPod {
            uid: pod.uid.clone(),
            restart_revision: pod.built.revision.to_string(),
            restarts: pod.restarts.clone(),
            config_digest: pod.built.document.digest(),
            deleting: pod.deleting,
            ready: self.is_ready(id),
            trouble: (pod.built.revision >= FIRST_BAD_REVISION).then(|| "ImagePullBackOff".to_owned()),
            kubernetes_node: None,
            zone: None,
            reads: pod.reads,
            role: pod.role,
        }
    }

    fn observed_server(&self, id: NodeId) -> ObservedServer {
        match self.server(id) {
            None | Some(Server::Booting(_)) => ObservedServer::Unknown,
            Some(Server::Data(data)) => ObservedServer::Data(Box::new(self.observed_data(id, data))),
            Some(Server::Sentinel(sentinel)) => ObservedServer::Sentinel(Box::new(self.observed_sentinel(sentinel))),
        }
    }

    fn observed_data(&self, id: NodeId, data: &Data) -> DataServer {
        let replication = match &data.follows {
            None => {
                let linked = self.pods.keys().filter(|other| self.is_linked(**other, id));
                let replica =
                    |other: &NodeId| Some((self.announced(*other)?.clone(), Offset(self.data(*other)?.offset)));
                Replication::Primary { replicas: linked.filter_map(replica).collect() }
            }
            Some(primary) => Replication::Replica {
                primary: primary.clone(),
                link_up: data.linked,
                syncing: !data.synced,
                priority: if data.electable { 100 } else { 0 },
                link_down_seconds: (!data.linked).then(|| self.time - data.down_since),
            },
        };
        let library = if data.library { "digest" } else { "" };
        let libraries = [("library".to_owned(), library.to_owned())];
        DataServer {
            run_id: data.run.clone(),
            replication,
            offset: Offset(data.offset),
            settings: BTreeMap::from([("setting".to_owned(), data.setting.to_string())]),
            users_in_place: BTreeSet::new(),
            users_foreign: BTreeSet::new(),
            libraries: data
                .stray
                .then(|| ("fnl_stray".to_owned(), String::new()))
                .into_iter()
                .chain(libraries)
                .collect(),
            functions: BTreeMap::new(),
            used_memory: 1,
            maxmemory: 100,
            rejected_connections: 0,
            refuses_clients: false,
            persistence_trouble: None,
            cluster: None,
            version: "redis 7.0.15".to_owned(),
        }
    }

    fn observed_sentinel(&self, sentinel: &Sentinel) -> SentinelServer {
        SentinelServer {
            run_id: sentinel.run.clone(),
            master: sentinel.view.as_ref().map(|view| self.observed_master(view)),
            users_in_place: BTreeSet::new(),
            users_foreign: BTreeSet::new(),
            tilt: false,
        }
    }

    fn observed_master(&self, view: &SentinelView) -> SentinelMaster {
        let mut flags = BTreeSet::from(["master".to_owned()]);
        if view.is_down(self.time) {
            flags.insert("s_down".to_owned());
        }
        if view.failover.is_some() {
            flags.insert("failover_in_progress".to_owned());
        }
        SentinelMaster {
            address: view.address.clone(),
            config_epoch: view.config_epoch,
            flags,
            quorum: view.quorum,
            detection: Duration::from_secs(DETECTION),
            failover_timeout: Duration::from_secs(FAILOVER_TIMEOUT),
            parallel_syncs: 1,
            other_sentinels: view.others.iter().map(|(other, address)| (other.to_string(), address.clone())).collect(),
            steady_milliseconds: Some((self.time - view.steady_since) * 1000),
            replicas: view.replicas.iter().map(|address| (address.clone(), BTreeSet::new())).collect(),
        }
    }

    /// Sentinels of the declared nodes that the operator can ask, and their highest epoch.
    pub fn asked_epoch(&self) -> Option<u64> {
        let declared = self.declared().into_iter().filter(|id| id.kind == NodeKind::Sentinel);
        declared.filter_map(|id| self.view(id)).map(|view| view.config_epoch).max()
    }
}
