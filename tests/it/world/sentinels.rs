//! Sentinels: what they know, when they take a primary for down, how they elect, and what they mend.

use std::collections::{BTreeMap, BTreeSet};

use redoubt::model::{Address, NodeId, NodeKind};

use super::{DETECTION, Document, FAILOVER_TIMEOUT, Server, World};

/// A running Sentinel.
#[derive(Clone, Debug)]
pub struct Sentinel {
    pub run: String,
    pub view: Option<SentinelView>,
}

/// What a Sentinel believes, and keeps on its volume.
#[derive(Clone, Debug)]
pub struct SentinelView {
    pub address: Address,
    pub config_epoch: u64,
    pub current_epoch: u64,
    pub quorum: u16,
    pub replicas: BTreeSet<Address>,
    pub others: BTreeMap<NodeId, Address>,
    pub steady_since: u64,
    pub down_since: Option<u64>,
    pub last_attempt: Option<u64>,
    pub failover: Option<Failover>,
    /// Replicas that follow the wrong one, or nobody, and since when.
    pub wrong_since: BTreeMap<Address, u64>,
}

/// An election that was won.
#[derive(Clone, Debug)]
pub struct Failover {
    pub since: u64,
    pub target: Address,
    pub epoch: u64,
}

impl Sentinel {
    /// As the agent renders it: what it remembered, without addresses that nobody has.
    pub fn boot(run: String, memory: Option<SentinelView>, document: &Document, time: u64) -> Self {
        let view = memory.filter(|memory| document.nodes.values().any(|known| *known == memory.address));
        let view = view.map(|mut view| {
            let is_known = |address: &Address| document.nodes.values().any(|known| known == address);
            view.replicas.retain(is_known);
            view.others.retain(|_, address| is_known(address));
            SentinelView { quorum: document.quorum, ..SentinelView::new(view.address.clone(), &view, time) }
        });
        Self { run, view }
    }
}

impl SentinelView {
    fn new(address: Address, memory: &Self, time: u64) -> Self {
        Self {
            address,
            steady_since: time,
            down_since: None,
            last_attempt: None,
            failover: None,
            wrong_since: BTreeMap::new(),
            ..memory.clone()
        }
    }

    fn first(address: Address, quorum: u16, time: u64) -> Self {
        Self {
            address,
            config_epoch: 0,
            current_epoch: 0,
            quorum,
            replicas: BTreeSet::new(),
            others: BTreeMap::new(),
            steady_since: time,
            down_since: None,
            last_attempt: None,
            failover: None,
            wrong_since: BTreeMap::new(),
        }
    }

    /// `GET-MASTER-ADDR-BY-NAME`.
    pub fn answered(&self) -> &Address {
        &self.address
    }

    /// `+switch-master`.
    pub fn switch(&mut self, address: &Address, epoch: u64, time: u64) {
        (self.config_epoch, self.current_epoch) = (epoch, self.current_epoch.max(epoch));
        if self.address != *address {
            let old = std::mem::replace(&mut self.address, address.clone());
            self.replicas.insert(old);
            self.replicas.remove(address);
            (self.steady_since, self.down_since) = (time, None);
            self.wrong_since.clear();
        }
        self.failover = None;
    }

    /// `SENTINEL RESET`.
    pub fn reset(&mut self, time: u64) {
        self.replicas.clear();
        self.others.clear();
        self.wrong_since.clear();
        (self.steady_since, self.down_since, self.failover) = (time, None, None);
    }

    pub fn is_down(&self, time: u64) -> bool {
        self.down_since.is_some_and(|since| time - since >= DETECTION)
    }
}

impl World {
    /// What a Sentinel that answers believes.
    pub fn view(&self, node: NodeId) -> Option<&SentinelView> {
        match self.server(node)? {
            Server::Sentinel(sentinel) => sentinel.view.as_ref(),
            _ => None,
        }
    }

    pub fn view_mut(&mut self, node: NodeId) -> Option<&mut SentinelView> {
        match self.pods.get_mut(&node)?.server.as_mut()? {
            Server::Sentinel(sentinel) => sentinel.view.as_mut(),
            _ => None,
        }
    }

    /// Whether a Sentinel names the primary and knows everybody else, and nobody more.
    pub fn knows_exactly(&self, node: NodeId, primary: NodeId) -> bool {
        let Some(view) = self.view(node) else { return false };
        let address = |id: NodeId| self.services.get(&id).cloned();
        let of_kind = |kind: NodeKind, besides: NodeId| -> BTreeSet<Address> {
            let nodes = self.declared().into_iter().filter(|id| id.kind == kind && *id != besides);
            nodes.filter_map(address).collect()
        };
        Some(&view.address) == self.services.get(&primary)
            && view.failover.is_none()
            && view.quorum == self.quorum()
            && view.replicas == of_kind(NodeKind::Data, primary)
            && view.others.values().cloned().collect::<BTreeSet<_>>() == of_kind(NodeKind::Sentinel, node)
    }

    fn sentinels(&self) -> Vec<NodeId> {
        self.pods.keys().copied().filter(|node| matches!(self.server(*node), Some(Server::Sentinel(_)))).collect()
    }

    /// The epoch of a node that most of the Sentinels of its document name.
    pub fn majority_epoch(&self, node: NodeId) -> Option<u64> {
        let own = self.pods.get(&node)?.built.document.nodes.get(&node)?;
        self.majority(node).filter(|(named, _)| named == own).map(|(_, epoch)| epoch)
    }

    /// Whom most of the Sentinels of a node's document name, as far as it reaches them, and the highest epoch of those.
    pub fn majority(&self, node: NodeId) -> Option<(Address, u64)> {
        let document = &self.pods.get(&node)?.built.document;
        let sentinels: Vec<&Address> = document.of_kind(NodeKind::Sentinel).map(|(_, address)| address).collect();
        let mut votes: BTreeMap<&Address, Vec<u64>> = BTreeMap::new();
        for view in sentinels.iter().filter_map(|address| self.view(self.reach(node, address)?)) {
            votes.entry(&view.address).or_default().push(view.config_epoch);
        }
        let (named, epochs) = votes.into_iter().find(|(_, epochs)| epochs.len() > sentinels.len() / 2)?;
        Some((named.clone(), epochs.into_iter().max()?))
    }

    pub(super) fn tick_sentinels(&mut self) {
        for node in self.sentinels() {
            self.find_primary(node);
            self.learn_better(node);
            self.greet(node);
            self.introduce(node);
            self.look(node);
            self.finish_failover(node);
            if self.wants_failover(node) {
                self.begin_failover(node);
            }
            self.mend(node);
            let memory = self.view(node).cloned();
            if memory.is_some() {
                self.volumes.entry(node).or_default().memory = memory;
            }
        }
    }

    /// The agent shows its Sentinel the primary that others name; failing that, the only one that serves.
    fn find_primary(&mut self, node: NodeId) {
        if self.view(node).is_some() {
            return;
        }
        let document = self.pods[&node].built.document.clone();
        let reached = |kind| document.of_kind(kind).filter_map(|(_, address)| self.reach(node, address));
        let views = reached(NodeKind::Sentinel).filter_map(|other| self.view(other));
        let named = views.map(|view| (view.config_epoch, view.address.clone())).max();
        let serving: Vec<NodeId> = reached(NodeKind::Data).filter(|data| self.is_primary(*data)).collect();
        let found = named.map(|(_, address)| address).or_else(|| match serving.as_slice() {
            [only] => document.nodes.get(only).cloned(),
            _ => None,
        });
        let (time, quorum) = (self.time, document.quorum);
        if let (Some(address), Some(Server::Sentinel(sentinel))) =
            (found, self.pods.get_mut(&node).and_then(|pod| pod.server.as_mut()))
        {
            sentinel.view = Some(SentinelView::first(address, quorum, time));
        }
    }

    /// The agent shows its Sentinel a primary anew that others name by newer knowledge, and that serves while its own does not.
    fn learn_better(&mut self, node: NodeId) {
        let Some(own) = self.view(node).filter(|own| own.failover.is_none()).cloned() else { return };
        let is_serving = |address: &Address| self.reach(node, address).is_some_and(|id| self.is_primary(id));
        let document = &self.pods[&node].built.document;
        let others = document.of_kind(NodeKind::Sentinel).filter_map(|(_, address)| self.reach(node, address));
        let newest = others
            .filter_map(|other| self.view(other))
            .map(|theirs| (theirs.config_epoch, theirs.address.clone()))
            .filter(|(epoch, address)| *epoch > own.config_epoch && *address != own.address)
            .max();
        let Some((_, better)) = newest.filter(|(_, better)| is_serving(better) && !is_serving(&own.address)) else {
            return;
        };
        let (time, quorum) = (self.time, document.quorum);
        if let Some(view) = self.view_mut(node) {
            *view = SentinelView::first(better, quorum, time);
        }
    }

    /// Sentinels hear of each other through the servers that they both watch.
    fn greet(&mut self, node: NodeId) {
        let Some(view) = self.view(node) else { return };
        let watched = |view: &SentinelView| -> BTreeSet<Address> {
            view.replicas.iter().cloned().chain([view.address.clone()]).collect()
        };
        let own: BTreeSet<Address> = watched(view)
            .into_iter()
            .filter(|address| self.reach(node, address).and_then(|id| self.data(id)).is_some())
            .collect();
        let mut heard = Vec::new();
        for other in self.sentinels().into_iter().filter(|other| *other != node) {
            let Some(theirs) = self.view(other) else { continue };
            if let (false, Some(address)) = (own.is_disjoint(&watched(theirs)), self.announced(other)) {
                heard.push((other, address.clone(), theirs.address.clone(), theirs.config_epoch, theirs.current_epoch));
            }
        }
        let time = self.time;
        let Some(view) = self.view_mut(node) else { return };
        for (other, address, primary, epoch, current) in heard {
            view.others.insert(other, address);
            view.current_epoch = view.current_epoch.max(current);
            if epoch > view.config_epoch {
                view.switch(&primary, epoch, time);
            }
        }
    }

    /// The agent introduces every Sentinel that the node's document names.
    fn introduce(&mut self, node: NodeId) {
        let declared: Vec<(NodeId, Address)> = self.pods[&node]
            .built
            .document
            .of_kind(NodeKind::Sentinel)
            .filter(|(other, _)| *other != node)
            .map(|(other, address)| (other, address.clone()))
            .collect();
        if let Some(view) = self.view_mut(node) {
            for (other, address) in declared {
                view.others.entry(other).or_insert(address);
            }
        }
    }

    /// Asks the primary: is it there, and who follows it?
    fn look(&mut self, node: NodeId) {
        let Some(view) = self.view(node) else { return };
        let primary = self.reach(node, &view.address).filter(|primary| self.is_primary(*primary));
        let replicas: Vec<Address> = primary.map_or_else(Vec::new, |primary| {
            let linked = self.pods.keys().filter(|id| self.is_linked(**id, primary));
            linked.filter_map(|id| self.announced(*id).cloned()).collect()
        });
        let time = self.time;
        let Some(view) = self.view_mut(node) else { return };
        view.replicas.extend(replicas);
        view.down_since = if primary.is_some() { None } else { view.down_since.or(Some(time)) };
    }

    /// Whether this Sentinel sees the primary down, a quorum agrees, and most of those that it knows would vote for it.
    fn wants_failover(&self, node: NodeId) -> bool {
        let Some(view) = self.view(node) else { return false };
        let rests = view.last_attempt.is_some_and(|last| self.time - last < 2 * FAILOVER_TIMEOUT);
        if !view.is_down(self.time) || view.failover.is_some() || rests {
            return false;
        }
        let voters: Vec<&SentinelView> =
            view.others.values().filter_map(|address| self.view(self.reach(node, address)?)).collect();
        let agree = voters.iter().filter(|other| other.address == view.address && other.is_down(self.time)).count();
        let is_taken = voters.iter().any(|other| other.failover.is_some());
        let needed = view.others.len().div_ceil(2) + 1;
        !is_taken && agree + 1 >= usize::from(view.quorum) && voters.len() + 1 >= needed.max(usize::from(view.quorum))
    }

    /// `SENTINEL FAILOVER`, or an election that was won: promotes the replica that has most.
    pub fn begin_failover(&mut self, node: NodeId) -> bool {
        let Some(view) = self.view(node) else { return false };
        if view.failover.is_some() {
            return true;
        }
        let best = self.electable(node).into_iter().max_by_key(|(id, _)| self.data(*id).map(|data| data.offset));
        let epoch = self.sentinels().iter().filter_map(|id| self.view(*id)).map(|known| known.current_epoch).max();
        let epoch = epoch.unwrap_or(0) + 1;
        let (time, history) = (self.time, self.fresh("history"));
        if let Some((id, _)) = &best
            && let Some(data) = self.data_mut(*id)
        {
            data.promote(history);
        }
        let Some(view) = self.view_mut(node) else { return false };
        (view.last_attempt, view.current_epoch) = (Some(time), epoch);
        view.failover = best.map(|(_, target)| Failover { since: time, target, epoch });
        view.failover.is_some()
    }

    /// Replicas that a Sentinel might elect. One that is primary already counts: its role is not asked (`sentinelSelectSlave`).
    pub fn electable(&self, node: NodeId) -> Vec<(NodeId, Address)> {
        let Some(view) = self.view(node) else { return Vec::new() };
        let known = view.replicas.iter().filter_map(|address| Some((self.reach(node, address)?, address.clone())));
        known.filter(|(id, _)| self.data(*id).is_some_and(|data| data.electable)).collect()
    }

    fn finish_failover(&mut self, node: NodeId) {
        let Some(view) = self.view(node) else { return };
        let Some(Failover { since, target, epoch }) = view.failover.clone() else { return };
        if since == self.time {
            return;
        }
        let promoted = self.reach(node, &target).filter(|id| self.is_primary(*id));
        let time = self.time;
        if promoted.is_none() {
            if let Some(view) = self.view_mut(node)
                && time - since > FAILOVER_TIMEOUT
            {
                view.failover = None;
            }
            return;
        }
        let replicas: Vec<NodeId> =
            self.electable(node).into_iter().map(|(id, _)| id).filter(|id| Some(*id) != promoted).collect();
        for replica in replicas {
            if let Some(data) = self.data_mut(replica) {
                data.follow(&target, time);
            }
        }
        if let Some(view) = self.view_mut(node) {
            view.switch(&target, epoch, time);
        }
    }

    /// Re-points known replicas that follow somebody else, and demotes those that follow nobody.
    fn mend(&mut self, node: NodeId) {
        let time = self.time;
        let Some(view) = self.view(node) else { return };
        let (address, is_sane) = (view.address.clone(), view.down_since.is_none() && view.failover.is_none());
        let mut wrong = view.wrong_since.clone();
        let mut mended = Vec::new();
        for known in &view.replicas {
            let replica = self.reach(node, known).and_then(|id| Some((id, self.data(id)?)));
            match replica {
                Some((id, data)) if data.follows.as_ref() != Some(&address) && is_sane => {
                    let since = *wrong.entry(known.clone()).or_insert(time);
                    let patience = if data.follows.is_some() { FAILOVER_TIMEOUT } else { 8 };
                    if time - since >= patience {
                        mended.push(id);
                    }
                }
                _ => drop(wrong.remove(known)),
            }
        }
        for id in mended {
            if let Some(data) = self.data_mut(id) {
                data.follow(&address, time);
            }
        }
        if let Some(view) = self.view_mut(node) {
            view.wrong_since = wrong;
        }
    }
}
