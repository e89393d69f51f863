//! The parts of a layer: volumes, servers, agents and Sentinels, and what each can see of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redoubt::model::boot::{BootDecision, BootFacts, Peer, SentinelAnswer, holds_all, in_force};
use redoubt::model::lineage::{Activity, Lineage};
use redoubt::model::position::{Position, Tail};
use redoubt::model::{Mode, ReplicationId, Role};

use super::writes::Writes;
use crate::boot_rule::LAYER;

pub const NODES: u16 = 3;
pub const SENTINELS: usize = 3;

/// What is on a volume, or in a server.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub record: Lineage,
    pub writes: Writes,
    /// Bytes of the append-only files, and which files they are.
    pub bytes: u64,
    pub files: usize,
    /// Where the data ended that its primary began with.
    pub began: Option<Position>,
}

impl Dataset {
    /// Without a write.
    pub fn empty(record: Lineage) -> Self {
        Self { record, writes: Writes::default(), bytes: 0, files: 0, began: None }
    }
}

/// A record on the volume, and the append-only files at its offset.
#[derive(Clone, Debug)]
pub struct Written {
    record: Lineage,
    bytes: u64,
    files: usize,
}

/// Records that are kept: a sudden end leaves one of them.
const RECORDS: usize = 3;

/// As the agent's questions to the layer: since when, and who answered when.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    pub since: u64,
    pub heard: BTreeMap<u16, u64>,
    pub sentinels_heard: u64,
    pub refused_since: Option<u64>,
    pub rival_since: Option<u64>,
    pub unnamed_since: Option<u64>,
}

impl Asking {
    pub fn begin(now: u64) -> Self {
        Self { since: now, sentinels_heard: now, ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub struct Engine {
    /// `None`: it is primary.
    pub follows: Option<u16>,
    pub electable: bool,
    /// It took part in what a primary writes, or is the best of what is left.
    pub takes_part: bool,
    pub asking: Option<Asking>,
    /// Since when it follows another than the Sentinels name.
    pub wrong_primary_since: Option<u64>,
    /// Whether it had a link to its primary since its start.
    pub had_link: bool,
    /// Since when it has none.
    pub alone_since: Option<u64>,
}

impl Engine {
    pub fn primary() -> Self {
        Self {
            follows: None,
            electable: true,
            takes_part: true,
            asking: None,
            wrong_primary_since: None,
            had_link: false,
            alone_since: None,
        }
    }
}

/// The files of a node, as far as they do not load.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// They do not load. A server that runs does not notice.
    pub are_damaged: bool,
    /// Ends of its engine over them.
    pub ends: u32,
    /// The node says that they cannot be used.
    pub are_unusable: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub runs: bool,
    pub asking: Asking,
    pub engine: Option<Engine>,
    pub data: Option<Dataset>,
    /// The last records, the newest one last. A sudden end leaves one of them.
    pub written: Vec<Written>,
    /// How many seconds it is old then, less one.
    pub lag: usize,
    /// The volume takes no record any more.
    pub is_stuck: bool,
    pub accepting: bool,
    pub needs_person: Option<BootDecision>,
    /// Seconds for which it hears what was true a second ago.
    pub late: u64,
    /// Seconds for which its answers are not believed.
    pub absurd: u64,
    /// Seconds for which somebody answers in its place that its data is newer than it is.
    pub forged: u64,
    pub files: Files,
}

#[derive(Clone, Debug, Default)]
pub struct Sentinel {
    pub runs: bool,
    pub zone: u8,
    /// Whom it names, and the epoch of that knowledge.
    pub names: Option<(u16, u64)>,
    pub current_epoch: u64,
    /// The other data nodes that it heard of: it elects and orders no others.
    pub knows: BTreeSet<u16>,
    pub down_since: Option<u64>,
    pub tried: Option<u64>,
    /// The time of detection that its agent set; less than the usual one: none.
    pub detection: u64,
    /// Since when a node that it knows does not follow whom it names.
    pub wrong_since: BTreeMap<u16, u64>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: u64,
    pub keeps_data: bool,
    pub initialised: bool,
    pub accept_loss: Option<u16>,
    pub nodes: Vec<Node>,
    pub zones: Vec<u8>,
    pub sentinels: Vec<Sentinel>,
    /// The nodes a second ago.
    pub before: Vec<Node>,
    pub confirmed: Writes,
    /// What was confirmed by a primary that most Sentinels did not name, or while another one served, or while a node said that it waits
    /// for a person, or while a node has a record of a later election; or what only nodes had that were not reached when another one became
    /// primary. One of two is decided against then, and what only that one has is kept aside.
    pub contested: Writes,
    pub kept_aside: Writes,
    /// A person chose a node, and not all follow it yet: what another one confirms meanwhile is kept aside.
    pub is_deciding: bool,
    pub counter: usize,
    pub histories: usize,
    pub lost: Option<String>,
    /// The Sentinels that lose their volumes once the next failover has promoted its replica.
    pub lost_in_failover: Option<u8>,
}

impl World {
    pub fn new(keeps_data: bool) -> Self {
        let node = Node { runs: true, lag: 1, ..Node::default() };
        let sentinel = Sentinel { runs: true, ..Sentinel::default() };
        let nodes = vec![node; usize::from(NODES)];
        Self {
            now: 1_000,
            keeps_data,
            initialised: false,
            accept_loss: None,
            before: nodes.clone(),
            nodes,
            zones: vec![0; usize::from(NODES)],
            sentinels: vec![sentinel; SENTINELS],
            confirmed: Writes::default(),
            contested: Writes::default(),
            kept_aside: Writes::default(),
            is_deciding: false,
            lost_in_failover: None,
            counter: 0,
            histories: 0,
            lost: None,
        }
    }

    /// As `Watch::write_if_due`: once a second, and at once where more than the offset moved.
    pub fn write_records(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_stuck) {
            let Some(data) = node.data.as_ref().filter(|_| node.engine.is_some()) else {
                node.written.clear();
                continue;
            };
            let kept = |of: &Lineage| (of.role, of.synced, of.epoch, of.term, of.link_up, of.accepted);
            let is_moved = |last: &Written| kept(&last.record) != kept(&data.record) || last.files != data.files;
            if node.written.last().is_some_and(is_moved) {
                node.written.clear();
            }
            node.written.push(Written { record: data.record.clone(), bytes: data.bytes, files: data.files });
            let surplus = node.written.len().saturating_sub(RECORDS);
            node.written.drain(..surplus);
        }
    }

    /// What a sudden end leaves: the file has all, and the record is as old as it was written. As `held::position`.
    pub fn leave_record(node: &mut Node) {
        let oldest = node.written.len().saturating_sub(node.lag + 1);
        let written = node.written.get(oldest).cloned();
        node.written.clear();
        node.is_stuck = false;
        let (Some(data), Some(written)) = (&mut node.data, written) else { return };
        let is_same = written.files == data.files;
        let bytes = i64::try_from(data.bytes).unwrap() - i64::try_from(written.bytes).unwrap();
        let tail = if is_same { Tail::Bytes(bytes) } else { Tail::Unknown };
        let led = is_same && written.record.role == Role::Primary;
        let went_on = is_same && bytes > 0 && !written.record.link_up;
        let held = Position { tail, led, went_on, ..written.record.recorded_position() };
        // Whether a decision was carried out is asked of volumes that take records (`docs/design/attacks.md`, what is open).
        let accepted = data.record.accepted;
        data.record = Lineage { clean_stop: false, held: Some(Box::new(held)), accepted, ..written.record };
    }

    pub fn fresh_files(&mut self) -> usize {
        self.histories += 1;
        self.histories
    }

    pub fn fresh_history(&mut self) -> ReplicationId {
        self.histories += 1;
        ReplicationId(format!("history-{}", self.histories))
    }

    pub fn node(&self, node: u16) -> &Node {
        &self.nodes[usize::from(node)]
    }

    pub fn node_mut(&mut self, node: u16) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    pub fn zone(&self, node: u16) -> u8 {
        self.zones[usize::from(node)]
    }

    pub fn is_primary(&self, node: u16) -> bool {
        self.node(node).engine.as_ref().is_some_and(|engine| engine.follows.is_none())
    }

    pub fn primaries(&self) -> usize {
        (0..NODES).filter(|node| self.is_primary(*node)).count()
    }

    fn follows(&self, node: u16) -> Option<u16> {
        self.node(node).engine.as_ref().and_then(|engine| engine.follows)
    }

    /// The primary whose writes the node is sent, directly or by another replica.
    pub fn source(&self, node: u16) -> Option<u16> {
        let mut at = node;
        for _ in 0..NODES {
            let next = self.follows(at).filter(|next| self.zone(*next) == self.zone(node))?;
            if self.is_primary(next) {
                return Some(next);
            }
            at = next;
        }
        None
    }

    /// Whether the node is a replica of this primary with a link to it.
    pub fn is_direct(&self, node: u16, primary: u16) -> bool {
        self.follows(node) == Some(primary) && self.source(node) == Some(primary)
    }

    pub fn recorded_epoch(&self, node: u16) -> u64 {
        self.node(node).data.as_ref().map_or(0, |data| data.record.epoch)
    }

    /// All that some node has, or keeps aside.
    pub fn held(&self) -> Writes {
        let mut held = self.kept_aside.clone();
        for data in self.nodes.iter().filter_map(|node| node.data.as_ref()) {
            held.add(&data.writes);
        }
        held
    }

    pub fn sentinels_of(&self, zone: u8) -> impl Iterator<Item = &Sentinel> {
        self.sentinels.iter().filter(move |known| known.runs && known.zone == zone)
    }

    pub fn views(&self, zone: u8) -> Vec<SentinelAnswer> {
        let view = |sentinel: &Sentinel| match sentinel.names {
            _ if !sentinel.runs || sentinel.zone != zone => SentinelAnswer::Silent,
            Some((named, _)) => SentinelAnswer::Names(named),
            None => SentinelAnswer::NamesNone,
        };
        self.sentinels.iter().map(view).collect()
    }

    /// Whom most Sentinels name, as a node of this zone hears.
    pub fn majority(&self, zone: u8) -> Option<(u16, u64)> {
        (0..NODES).find_map(|node| {
            let names = self.sentinels_of(zone).filter_map(|known| known.names);
            let epochs: Vec<u64> = names.filter(|(named, _)| *named == node).map(|(_, epoch)| epoch).collect();
            (epochs.len() > SENTINELS / 2).then(|| (node, epochs.into_iter().max().unwrap_or(0)))
        })
    }

    /// Whether a node hears the answer of another.
    pub fn is_heard(&self, peer: u16, by: u16) -> bool {
        let known = self.node(peer);
        known.runs && known.absurd == 0 && self.zone(peer) == self.zone(by)
    }

    /// The record that a node hears of another; `None`: it hears of none.
    pub fn record_heard(&self, peer: u16, by: u16) -> Option<Lineage> {
        let known = self.node(peer);
        known.data.as_ref().filter(|_| self.is_heard(peer, by)).map(|data| forged(known, &data.record))
    }

    pub fn facts(&self, node: u16, asking: &mut Asking) -> BootFacts {
        let own = self.node(node);
        let source = if own.late > 0 { &self.before } else { &self.nodes };
        let mut peers = BTreeMap::new();
        let mut accepting = own.accepting.then_some(node);
        let mut records = Vec::new();
        for peer in (0..NODES).filter(|peer| *peer != node) {
            if !self.is_heard(peer, node) {
                let heard = asking.heard.get(&peer).copied().unwrap_or(asking.since);
                peers.insert(peer, Peer::Silent { time: Duration::from_secs(self.now - heard) });
                continue;
            }
            asking.heard.insert(peer, self.now);
            let known = &source[usize::from(peer)];
            if known.accepting && self.accept_loss == Some(peer) {
                accepting = accepting.or(Some(peer));
            }
            let lineage = known.data.as_ref().map(|data| forged(known, &data.record));
            records.extend(lineage.clone());
            // What cannot be loaded holds back no node that has as much.
            let is_unusable = known.files.are_unusable && known.engine.is_none();
            let rest =
                (0..NODES).filter(|other| ![node, peer].contains(other)).map(|other| self.record_heard(other, node));
            let rest: Vec<Option<Lineage>> = rest.collect();
            let has_it = |theirs: &Lineage| {
                let rest = rest.iter().map(Option::as_ref);
                own.data.as_ref().is_some_and(|own| holds_all(&own.record, theirs, LAYER, rest))
            };
            let lineage = lineage.filter(|theirs| !(is_unusable && has_it(theirs)));
            peers.insert(peer, Peer::Answers { activity: activity(known), lineage });
        }
        let own_record = own.data.as_ref().map(|data| data.record.clone());
        records.extend(own_record.clone());
        let sentinels = self.views(self.zone(node));
        let answering = sentinels.iter().filter(|answer| **answer != SentinelAnswer::Silent).count();
        if answering > SENTINELS / 2 {
            asking.sentinels_heard = self.now;
        }
        let accept_loss = if self.accept_loss == Some(node) {
            in_force(self.accept_loss, LAYER, records.iter())
        } else {
            self.accept_loss
        };
        BootFacts {
            mode: Mode::Sentinel,
            layer_uid: LAYER.to_owned(),
            own_ordinal: node,
            own: own_record,
            initialised: self.initialised,
            keeps_data: self.keeps_data,
            accept_loss,
            accepting,
            peers,
            detection: Duration::from_secs(super::sentinels::DETECTION),
            sentinels,
            sentinels_silent: Duration::from_secs(self.now - asking.sentinels_heard),
            refused: asking.refused_since.map_or(Duration::ZERO, |since| Duration::from_secs(self.now - since)),
            unnamed: asking.unnamed_since.map_or(Duration::ZERO, |since| Duration::from_secs(self.now - since)),
            waited: Duration::from_secs(self.now - asking.since),
        }
    }

    /// One primary that most Sentinels name, and all others its replicas.
    pub fn is_in_sync(&self) -> bool {
        let Some(primary) = (0..NODES).find(|node| self.is_primary(*node)) else { return false };
        let is_named = self.majority(self.zone(primary)).is_some_and(|(named, _)| named == primary);
        let replicas = (0..NODES).filter(|node| self.is_direct(*node, primary)).count();
        is_named && self.primaries() == 1 && replicas == usize::from(NODES) - 1
    }

    pub fn mend(&mut self) {
        self.zones.fill(0);
        for sentinel in &mut self.sentinels {
            (sentinel.runs, sentinel.zone) = (true, 0);
        }
    }
}

/// The record as others hear it: one that is forged is believable, and newer.
pub fn forged(node: &Node, record: &Lineage) -> Lineage {
    let more = if node.forged > 0 { 3 } else { 0 };
    let mut forged = Lineage { epoch: record.epoch + more, term: record.term + more, ..record.clone() };
    if let Some(held) = &mut forged.held {
        (held.epoch, held.term) = (held.epoch + more, held.term + more);
    }
    forged
}

fn activity(node: &Node) -> Activity {
    match &node.engine {
        None => Activity::Deciding,
        Some(engine) if engine.follows.is_none() || engine.takes_part => Activity::Serving,
        Some(_) => Activity::Loading,
    }
}

/// A role as a record says it.
pub fn become_replica(record: &mut Lineage) {
    (record.role, record.link_up) = (Role::Replica, true);
}
