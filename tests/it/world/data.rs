//! Data nodes: agents that ask the real boot rule, and servers that replicate.

use std::collections::BTreeMap;
use std::time::Duration;

use redoubt::model::boot::{BootDecision, BootFacts, Peer, PrimaryReason, SentinelAnswer, decide};
use redoubt::model::lineage::{Activity, LINEAGE_FORMAT, Lineage};
use redoubt::model::{Address, Mode, NodeId, NodeKind, Offset, ReplicationId, Role};

use super::{Server, World};

/// An agent that asks the rule, mostly one that has not started its engine yet.
#[derive(Clone, Debug)]
pub struct Boot {
    pub since: u64,
    /// When each peer answered last.
    pub heard: BTreeMap<u16, u64>,
}

impl Boot {
    pub fn begin(since: u64) -> Self {
        Self { since, heard: BTreeMap::new() }
    }
}

/// A running engine.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a server that vary by themselves")]
pub struct Data {
    pub run: String,
    /// Whom it follows; `None`: it is a primary.
    pub follows: Option<Address>,
    /// Its link is up.
    pub linked: bool,
    /// When it lost its link, or began without one.
    pub down_since: u64,
    pub synced: bool,
    pub electable: bool,
    /// It was whole in this life of its, or is the best of what is left: what `Activity::Serving` means by `model::lineage`.
    pub was_whole: bool,
    /// While its agent asks the rule once more.
    pub asking: Option<Boot>,
    pub epoch: u64,
    pub term: u64,
    pub history: String,
    /// The history before, and how much of it the data holds.
    pub previous: Option<(String, u64)>,
    pub offset: u64,
    pub setting: u8,
    pub library: bool,
    /// Whether it has a user's library that is not declared.
    pub stray: bool,
}

impl Data {
    fn lineage(&self, clean_stop: bool) -> Lineage {
        Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: "uid".to_owned(),
            epoch: self.epoch,
            term: self.term,
            role: if self.follows.is_none() { Role::Primary } else { Role::Replica },
            replication_id: ReplicationId(self.history.clone()),
            previous_replication_id: self.previous.clone().map(|(history, _)| ReplicationId(history)),
            previous_offset: self.previous.as_ref().map(|(_, offset)| Offset(*offset)),
            offset: Offset(self.offset),
            synced: self.synced,
            link_up: self.follows.is_none() || self.linked,
            keys: self.offset,
            clean_stop,
            append_only: Some(true),
            accepted: None,
            held: None,
        }
    }

    /// Makes it a primary: a new history that continues the old one.
    pub fn promote(&mut self, history: String) {
        if self.follows.take().is_some() {
            self.previous = Some((std::mem::replace(&mut self.history, history), self.offset));
            self.term += 1;
        }
    }

    /// Makes it a replica of an address.
    pub fn follow(&mut self, address: &Address, time: u64) {
        if self.follows.as_ref() != Some(address) {
            self.follows = Some(address.clone());
            (self.linked, self.down_since) = (false, time);
        }
    }
}

impl World {
    pub fn data(&self, node: NodeId) -> Option<&Data> {
        match self.server(node)? {
            Server::Data(data) => Some(data),
            _ => None,
        }
    }

    pub fn data_mut(&mut self, node: NodeId) -> Option<&mut Data> {
        match self.pods.get_mut(&node)?.server.as_mut()? {
            Server::Data(data) => Some(data),
            _ => None,
        }
    }

    pub fn is_primary(&self, node: NodeId) -> bool {
        self.data(node).is_some_and(|data| data.follows.is_none())
    }

    /// Whether a node is a whole replica of that primary.
    pub fn is_linked(&self, node: NodeId, primary: NodeId) -> bool {
        let Some(data) = self.data(node) else { return false };
        let leads = data.follows.as_ref().and_then(|address| self.reach(node, address));
        data.linked && data.synced && leads == Some(primary) && self.is_primary(primary)
    }

    /// The address that a node announces.
    pub fn announced(&self, node: NodeId) -> Option<&Address> {
        self.pods.get(&node)?.built.document.nodes.get(&node)
    }

    /// What an engine leaves on its volume.
    pub fn write_down(&mut self, node: NodeId, clean: bool) {
        let Some(Server::Data(data)) = self.pods.get(&node).and_then(|pod| pod.server.as_ref()) else { return };
        let (lineage, library, stray) = (data.lineage(clean), data.library, data.stray);
        let volume = self.volumes.entry(node).or_default();
        (volume.lineage, volume.library, volume.stray) = (Some(lineage), library, stray);
    }

    pub(super) fn tick_data(&mut self) {
        let nodes: Vec<NodeId> = self.pods.keys().copied().filter(|node| node.kind == NodeKind::Data).collect();
        for node in nodes {
            match self.pods[&node].server {
                Some(Server::Booting(_)) => self.boot(node),
                Some(Server::Data(_)) => {
                    self.replicate(node);
                    if self.data_of(node).is_some_and(|data| data.follows.is_some()) {
                        self.decide_again(node);
                    }
                }
                _ => continue,
            }
            self.write_down(node, false);
        }
    }

    fn boot(&mut self, node: NodeId) {
        let Some(Server::Booting(mut boot)) = self.pods.get(&node).and_then(|pod| pod.server.clone()) else { return };
        let document = self.pods[&node].built.document.clone();
        let facts = self.facts(node, &document, &mut boot);
        if let Some(pod) = self.pods.get_mut(&node) {
            pod.server = Some(Server::Booting(boot));
        }
        let highest_term = facts.peers.values().filter_map(|peer| match peer {
            Peer::Answers { lineage: Some(lineage), .. } => Some(lineage.term),
            _ => None,
        });
        match decide(&facts) {
            BootDecision::StartPrimary(_) => self.start(node, None, true, highest_term.max().unwrap_or(0) + 1),
            BootDecision::Follow { primary, electable } => {
                let address = document.nodes.get(&NodeId::data(primary)).cloned();
                if address.is_some() {
                    self.start(node, address, electable, 0);
                }
            }
            BootDecision::AskForFailover => {
                let sentinels: Vec<Address> =
                    document.of_kind(NodeKind::Sentinel).map(|(_, address)| address.clone()).collect();
                for address in sentinels {
                    if self.reach(node, &address).is_some_and(|sentinel| self.begin_failover(sentinel)) {
                        break;
                    }
                }
            }
            BootDecision::Wait(_) => {}
        }
    }

    /// What an agent knows when it asks the rule.
    fn facts(&self, node: NodeId, document: &super::Document, boot: &mut Boot) -> BootFacts {
        let mut peers = BTreeMap::new();
        for (peer, address) in document.of_kind(NodeKind::Data).filter(|(peer, _)| *peer != node) {
            let answer = self.reach(node, address).and_then(|owner| self.server(owner).map(|server| (owner, server)));
            let answer = match answer {
                Some((owner, Server::Booting(_))) => {
                    let lineage = self.volumes.get(&owner).and_then(|volume| volume.lineage.clone());
                    Peer::Answers { activity: Activity::Deciding, lineage }
                }
                Some((_, Server::Data(data))) => {
                    let activity = if data.was_whole && data.synced { Activity::Serving } else { Activity::Loading };
                    Peer::Answers { activity, lineage: Some(data.lineage(false)) }
                }
                _ => {
                    let heard = boot.heard.get(&peer.ordinal).copied().unwrap_or(boot.since);
                    Peer::Silent { time: Duration::from_secs(self.time - heard) }
                }
            };
            if matches!(answer, Peer::Answers { .. }) {
                boot.heard.insert(peer.ordinal, self.time);
            }
            peers.insert(peer.ordinal, answer);
        }
        let sentinels = document.of_kind(NodeKind::Sentinel).map(|(_, address)| self.named_by(node, address, document));
        BootFacts {
            mode: Mode::Sentinel,
            layer_uid: "uid".to_owned(),
            own_ordinal: node.ordinal,
            own: self.volumes.get(&node).and_then(|volume| volume.lineage.clone()),
            initialised: document.initialised,
            keeps_data: true,
            accept_loss: document.accept_loss,
            accepting: None,
            refused: Duration::ZERO,
            unnamed: Duration::ZERO,
            waited: Duration::from_secs(self.time - boot.since),
            detection: Duration::from_secs(5),
            sentinels: sentinels.collect(),
            // It matters only while too few answer, and in the model those that boot with this node were never heard.
            sentinels_silent: Duration::from_secs(self.time - boot.since),
            peers,
        }
    }

    /// As the agent's `Watch::decide_again`: the rule once more, for a replica that finds nobody to follow.
    fn decide_again(&mut self, node: NodeId) {
        let document = self.pods[&node].built.document.clone();
        let is_named = self.majority(node).is_some_and(|(named, _)| document.nodes.get(&node) == Some(&named));
        let time = self.time;
        let Some(data) = self.data_mut(node) else { return };
        if data.linked || (data.was_whole && !is_named) {
            data.asking = None;
            return;
        }
        let mut asking = data.asking.take().unwrap_or_else(|| Boot::begin(time));
        let decision = decide(&self.facts(node, &document, &mut asking));
        let history = self.fresh("history");
        let Some(data) = self.data_mut(node) else { return };
        data.asking = Some(asking);
        match decision {
            BootDecision::Follow { electable: true, .. } => (data.electable, data.was_whole) = (true, true),
            BootDecision::StartPrimary(PrimaryReason::NamedAndNewest) => data.promote(history),
            _ => {}
        }
    }

    fn named_by(&self, node: NodeId, address: &Address, document: &super::Document) -> SentinelAnswer {
        let Some(Server::Sentinel(sentinel)) = self.reach(node, address).and_then(|owner| self.server(owner)) else {
            return SentinelAnswer::Silent;
        };
        let named = sentinel.view.as_ref().map(super::SentinelView::answered);
        let known = document.of_kind(NodeKind::Data).find(|(_, known)| Some(*known) == named);
        known.map_or(SentinelAnswer::NamesNone, |(peer, _)| SentinelAnswer::Names(peer.ordinal))
    }

    fn start(&mut self, node: NodeId, follows: Option<Address>, electable: bool, term: u64) {
        let (run, history) = (self.fresh("run"), self.fresh("history"));
        let volume = self.volumes.entry(node).or_default().clone();
        let own = volume.lineage;
        let is_primary = follows.is_none();
        let data = Data {
            run,
            linked: false,
            down_since: self.time,
            synced: is_primary || own.as_ref().is_some_and(|own| own.synced),
            electable,
            was_whole: electable,
            asking: None,
            epoch: own.as_ref().map_or(0, |own| own.epoch),
            term: if is_primary {
                term.max(own.as_ref().map_or(0, |own| own.term + 1))
            } else {
                own.as_ref().map_or(0, |own| own.term)
            },
            // A file restores neither history nor offset to the server.
            history,
            previous: None,
            offset: own.as_ref().map_or(0, |own| own.offset.0),
            setting: self.pods[&node].built.document.setting,
            library: volume.library,
            stray: volume.stray,
            follows,
        };
        if let Some(pod) = self.pods.get_mut(&node) {
            pod.server = Some(Server::Data(data));
        }
    }

    fn replicate(&mut self, node: NodeId) {
        let time = self.time;
        let Some(follows) = self.data_of(node).map(|data| data.follows.clone()) else { return };
        let epoch = self.majority_epoch(node);
        let successor = self.successor(node);
        let Some(address) = follows else {
            let Some(data) = self.data_mut(node) else { return };
            data.offset += 1;
            data.epoch = data.epoch.max(epoch.unwrap_or(0));
            (data.synced, data.electable) = (true, true);
            if successor.is_some() {
                (data.follows, data.linked, data.down_since) = (successor, false, time);
            }
            return;
        };
        let source = self.reach(node, &address).filter(|source| *source != node);
        let source =
            source.and_then(|source| self.data(source)).filter(|source| source.follows.is_none() || source.linked);
        let source = source.cloned();
        let Some(data) = self.data_mut(node) else { return };
        let Some(source) = source else {
            if data.linked {
                (data.linked, data.down_since) = (false, time);
            }
            return;
        };
        let continues = data.history == source.history
            || source.previous.as_ref().is_some_and(|(before, _)| *before == data.history);
        if continues && data.offset <= source.offset {
            data.linked = true;
            data.synced = source.synced;
            data.electable = source.synced;
            data.was_whole |= source.synced;
            data.offset = source.offset;
            (data.library, data.stray) = (source.library, source.stray);
            if source.follows.is_none() {
                (data.term, data.epoch) = (source.term, source.epoch);
            }
        } else {
            // A full sync takes until the next second.
            if data.linked {
                data.down_since = time;
            }
            (data.linked, data.synced, data.electable, data.offset) = (false, false, false, 0);
        }
        (data.history, data.previous) = (source.history, source.previous);
    }

    /// Whom a primary follows that the Sentinels replaced while it served on: its agent has it step down.
    fn successor(&self, node: NodeId) -> Option<Address> {
        let own = self.data_of(node)?;
        let (named, epoch) = self.majority(node)?;
        let serves = self.reach(node, &named).is_some_and(|other| other != node && self.is_primary(other));
        (serves && epoch > own.epoch).then_some(named)
    }

    /// As [`World::data`], for the node itself: being cut off does not matter.
    fn data_of(&self, node: NodeId) -> Option<&Data> {
        match self.pods.get(&node)?.server.as_ref()? {
            Server::Data(data) => Some(data),
            _ => None,
        }
    }
}
