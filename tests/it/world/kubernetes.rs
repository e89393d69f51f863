//! StatefulSet controllers and kubelets.

use redoubt::model::{NodeId, NodeKind};

use super::data::Boot;
use super::{FIRST_BAD_REVISION, Pod, REFUSED_REVISION, Sentinel, Server, Workload, World};

impl World {
    pub(super) fn tick_kubernetes(&mut self) {
        self.stop_pods();
        self.workloads.retain(|node, workload| !workload.deleting || self.pods.contains_key(node));
        for (node, pod) in &mut self.pods {
            pod.deleting |= self.workloads.get(node).is_none_or(|workload| workload.deleting);
        }
        self.create_pods();
        self.start_pods();
    }

    /// A kubelet tells a pod to stop, and takes it away a second later. One that is cut off does neither.
    fn stop_pods(&mut self) {
        let leaving: Vec<NodeId> = self.pods.iter().filter(|(_, pod)| pod.deleting).map(|(node, _)| *node).collect();
        for node in leaving.into_iter().filter(|node| !self.cut.contains(node)).collect::<Vec<_>>() {
            if self.pods[&node].stopped || self.pods[&node].server.is_none() {
                self.pods.remove(&node);
                continue;
            }
            // The agent hands over before it stops.
            if self.is_primary(node) {
                self.hand_over(node, None);
            }
            self.write_down(node, true);
            if let Some(pod) = self.pods.get_mut(&node) {
                (pod.stopped, pod.server) = (true, None);
            }
        }
    }

    fn create_pods(&mut self) {
        let missing: Vec<NodeId> =
            self.workloads.keys().copied().filter(|node| !self.pods.contains_key(node)).collect();
        self.missing_since.retain(|node, _| missing.contains(node));
        for node in missing {
            if self.workloads[&node].built.revision == REFUSED_REVISION {
                self.missing_since.entry(node).or_insert(self.time);
                continue;
            }
            self.missing_since.remove(&node);
            let Workload { built, restarts, .. } = self.workloads[&node].clone();
            let uid = self.fresh("pod");
            let pod =
                Pod { uid, built, restarts, deleting: false, stopped: false, reads: false, role: None, server: None };
            self.pods.insert(node, pod);
        }
    }

    /// As the operator's own count of absences.
    pub fn note_absences(&mut self) {
        let away: Vec<NodeId> = self.workloads.keys().copied().filter(|node| !self.is_ready(*node)).collect();
        self.away_since.retain(|node, _| away.contains(node));
        for node in away {
            self.away_since.entry(node).or_insert(self.time);
        }
    }

    fn start_pods(&mut self) {
        // A pod whose Secret is not there stays in ContainerCreating.
        if !self.statics.contains(super::STATIC[0]) {
            return;
        }
        let idle: Vec<NodeId> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.server.is_none() && !pod.deleting && pod.built.revision < FIRST_BAD_REVISION)
            .map(|(node, _)| *node)
            .collect();
        for node in idle {
            let run = self.fresh("run");
            let memory = self.volumes.entry(node).or_default().memory.clone();
            let time = self.time;
            let Some(pod) = self.pods.get_mut(&node) else { continue };
            pod.server = Some(match node.kind {
                NodeKind::Data => Server::Booting(Boot::begin(time)),
                NodeKind::Sentinel => Server::Sentinel(Sentinel::boot(run, memory, &pod.built.document, time)),
            });
        }
    }

    /// Kubernetes' word on a pod.
    pub fn is_ready(&self, node: NodeId) -> bool {
        match self.server(node) {
            Some(Server::Data(data)) => data.follows.is_none() || data.linked,
            Some(Server::Sentinel(_)) => true,
            Some(Server::Booting(_)) | None => false,
        }
    }
}
