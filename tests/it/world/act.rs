//! Steps, carried out under their preconditions as `act` does, and what they must never do.

use std::collections::{BTreeMap, BTreeSet};

use redoubt::model::{Address, NodeId, NodeKind};
use redoubt::plan::Step;
use redoubt::plan::reason::RestartReason;

use super::{Server, Workload, World, takes_away};

impl World {
    /// Carries out one step, or drops it.
    pub fn carry_out(&mut self, step: &Step) {
        if step.expected_epoch().is_some_and(|expected| self.asked_epoch() != Some(expected)) {
            return;
        }
        let time = self.time;
        match step {
            Step::ApplyService { node } => {
                let kind = u8::from(node.kind == NodeKind::Sentinel);
                self.services.entry(*node).or_insert_with(|| Address(format!("10.0.{kind}.{}", node.ordinal)));
            }
            Step::ApplyWorkload { node, workload_digest, .. } => self.apply(*node, workload_digest),
            Step::RestartPod { node, pod_uid, .. } => {
                if self.pods.get(node).is_some_and(|pod| pod.uid == *pod_uid && !pod.deleting) {
                    self.watch_over(step);
                    if let Some(pod) = self.pods.get_mut(node) {
                        pod.deleting = true;
                    }
                }
            }
            Step::PatchConfig { node, pod_uid, config_digest } => {
                let document = self.built.values().map(|built| &built.document);
                let document = document.into_iter().find(|document| document.digest() == *config_digest).cloned();
                if let (Some(pod), Some(document)) =
                    (self.pods.get_mut(node).filter(|pod| pod.uid == *pod_uid), document)
                {
                    pod.built.document = document;
                }
            }
            Step::PointService { node, version } => {
                if self.primary_service.map(|primary| primary.to_string()) == *version {
                    self.primary_service = Some(*node);
                }
            }
            Step::LabelPod { node, pod_uid, reads, role } => {
                if let Some(pod) = self.pods.get_mut(node).filter(|pod| pod.uid == *pod_uid) {
                    (pod.reads, pod.role) = (reads.unwrap_or(pod.reads), *role);
                }
            }
            Step::RemoveNode { node, workload_uid: Some(uid), .. } => {
                if self.workloads.get(node).is_some_and(|workload| workload.uid == *uid && !workload.deleting) {
                    self.watch_over(step);
                    if let Some(workload) = self.workloads.get_mut(node) {
                        workload.deleting = true;
                    }
                }
            }
            Step::AddSlots { .. } | Step::ForgetMember { .. } => panic!("a step of mode Cluster: {step:?}"),
            Step::RemoveNode { node, workload_uid: None, .. } => drop(self.services.remove(node)),
            Step::Switchover { from, from_run_id, candidates, to, .. } => {
                let is_same = self.data(*from).is_some_and(|data| data.run == *from_run_id && data.follows.is_none());
                if is_same {
                    self.hand_over_to(*from, candidates, *to);
                }
            }
            Step::ResetSentinel { node, run_id, .. } => {
                let is_same = matches!(self.server(*node), Some(Server::Sentinel(known)) if known.run == *run_id);
                if let Some(view) = self.view_mut(*node).filter(|view| is_same && view.failover.is_none()) {
                    view.reset(time);
                }
            }
            Step::SetSentinel { node, run_id } => {
                let quorum = self.quorum();
                let is_same = matches!(self.server(*node), Some(Server::Sentinel(known)) if known.run == *run_id);
                if let Some(view) = self.view_mut(*node).filter(|_| is_same) {
                    view.quorum = quorum;
                }
            }
            Step::Repoint { node, run_id, primary, .. } => {
                if let Some(data) = self.live(*node, run_id) {
                    data.follow(primary, time);
                }
            }
            Step::SetSettings { node, run_id, changes } => {
                let value = changes.get("setting").and_then(|value| value.parse().ok());
                if let (Some(data), Some(value)) = (self.live(*node, run_id), value) {
                    data.setting = value;
                }
            }
            Step::LoadLibrary { node, run_id, .. } => {
                if let Some(data) = self.live(*node, run_id) {
                    let is_primary = data.follows.is_none();
                    data.library |= is_primary;
                    // A user's library that went while nothing could be loaded.
                    data.stray |= is_primary;
                }
            }
            Step::DeleteLibrary { node, run_id, .. } => {
                if let Some(data) = self.live(*node, run_id) {
                    data.stray &= data.follows.is_some();
                }
            }
            // No label is taken off a pod here.
            Step::SetUser { .. } | Step::DeleteUser { .. } | Step::RelabelPod { .. } => {}
        }
    }

    fn live(&mut self, node: NodeId, run: &str) -> Option<&mut super::Data> {
        let is_reached = !self.cut.contains(&node);
        self.data_mut(node).filter(|data| data.run == run && is_reached)
    }

    fn apply(&mut self, node: NodeId, digest: &str) {
        let Some(built) = self.built.get(digest).cloned() else { return };
        let uid = self.fresh("workload");
        let workload = self.workloads.entry(node).or_insert(Workload {
            uid,
            built: built.clone(),
            restarts: BTreeMap::new(),
            edited: false,
            deleting: false,
        });
        if !workload.deleting {
            (workload.built, workload.edited) = (built, false);
        }
    }

    /// What the operator must never do: stop a primary, or take a second node away.
    fn watch_over(&mut self, step: &Step) {
        let node = step.node();
        let is_named = self.view_names(node);
        if self.is_primary(node) && is_named {
            self.violations.push(format!("a primary is stopped: {step:?}"));
        }
        // A pod that never came up is not there to be missed.
        let is_broken = matches!(step, Step::RestartPod { reason: RestartReason::BrokenRevision, .. });
        if !takes_away(step) || is_broken {
            return;
        }
        if !self.away.is_empty() && !self.away.contains(&node) {
            self.violations.push(format!("a second node is taken away beside {:?}: {step:?}", self.away));
        }
        self.away.insert(node);
    }

    /// Whether most of all Sentinels name a node.
    fn view_names(&self, node: NodeId) -> bool {
        let all: Vec<NodeId> = self.declared().into_iter().filter(|id| id.kind == NodeKind::Sentinel).collect();
        let own = self.announced(node);
        let names = all.iter().filter(|id| self.view(**id).is_some_and(|view| Some(&view.address) == own));
        names.count() > all.len() / 2
    }

    /// The move to one of the candidates: the Sentinels pass the others over, and their agents undo that when it is done.
    fn hand_over_to(&mut self, from: NodeId, candidates: &[NodeId], to: Option<NodeId>) {
        let Some(to) = to else {
            self.hand_over(from, Some(candidates));
            return;
        };
        let others = candidates.iter().copied().filter(|id| *id != to);
        let passed_over: Vec<NodeId> = others
            .filter(|id| self.data(*id).is_some_and(|data| data.electable) && self.is_linked(*id, from))
            .collect();
        let set = |world: &mut Self, electable| {
            for id in &passed_over {
                if let Some(data) = world.data_mut(*id) {
                    data.electable = electable;
                }
            }
        };
        set(self, false);
        self.hand_over(from, Some(candidates));
        set(self, true);
    }

    /// The loss-free move: everybody that could be elected has everything, a fit Sentinel acts, the old one follows.
    /// `candidates` are the operator's; the agent of a pod that stops takes every data node that it knows.
    pub fn hand_over(&mut self, from: NodeId, candidates: Option<&[NodeId]>) -> bool {
        let Some(own) = self.announced(from).cloned() else { return false };
        let known = |id: &NodeId| candidates.is_none_or(|candidates| candidates.contains(id));
        let fit: BTreeSet<NodeId> =
            self.pods.keys().copied().filter(|id| known(id) && self.is_linked(*id, from)).collect();
        let sentinels: Vec<NodeId> = self.pods.keys().copied().filter(|id| self.view(*id).is_some()).collect();
        let is_fit_to_act = |id: &NodeId| {
            let Some(view) = self.view(*id) else { return false };
            let electable = self.electable(*id);
            view.address == own
                && !view.is_down(self.time)
                && view.failover.is_none()
                && !electable.is_empty()
                && electable.iter().all(|(id, _)| fit.contains(id))
        };
        let Some(actor) = sentinels.into_iter().find(is_fit_to_act) else { return false };
        if !self.begin_failover(actor) {
            return false;
        }
        let target = self.view(actor).and_then(|view| view.failover.as_ref()).map(|failover| failover.target.clone());
        let time = self.time;
        for id in fit.into_iter().chain([from]) {
            if let (Some(target), Some(data)) = (&target, self.data_mut(id))
                && (data.follows.is_some() || id == from)
            {
                data.follow(target, time);
            }
        }
        true
    }
}
