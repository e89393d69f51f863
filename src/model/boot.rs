//! The boot rule: may this data node start its engine, and as what?
//!
//! Pure and total: the agent gathers [`BootFacts`], asks [`decide`], and asks again with new facts while the answer is to
//! wait. The engine is not started while in doubt, so the Sentinels see the node as down and elect another. The rule
//! numbers are those of DESIGN §2 "Boot rule".

use std::collections::BTreeMap;

use serde::Serialize;

use super::lineage::{Activity, Lineage};
use super::{Mode, Role};

/// Silence after which a peer no longer blocks the others. Long enough for a pod that is moved to another Kubernetes node
/// whose image is there; shorter than the patience of a person who waits for a service.
pub const SILENT_PEER_MILLISECONDS: u64 = 60_000;

/// Silence that an uncleanly stopped primary, which the Sentinels still name, bears before it resumes: its peers may just
/// be starting as well, with a newer file. The Sentinels' default detection time.
pub const UNCLEAN_PRIMARY_PATIENCE_MILLISECONDS: u64 = 5_000;

/// Silence of the Sentinels' majority after which a node may become primary without them. When all pods start at once the
/// Sentinels are often a moment late, and they remember who is primary: a node that began without them would be a second
/// one. Sentinels that take longer than this are not just starting, and the layer's data nodes agree among themselves.
pub const SILENT_SENTINELS_MILLISECONDS: u64 = 10_000;

/// Everything that the decision depends on.
#[derive(Clone, Debug)]
pub struct BootFacts {
    /// Mode of the layer.
    pub mode: Mode,
    /// UID of the layer now; lineage of another UID is older than any of this one.
    pub layer_uid: String,
    /// Ordinal of this node.
    pub own_ordinal: u16,
    /// The own record; `None`: the volume is empty.
    pub own: Option<Lineage>,
    /// Whether the layer was Ready once, or had keys.
    pub initialised: bool,
    /// Whether its data is meant to survive a restart.
    pub keeps_data: bool,
    /// The data node whose data a person chose, consulted only where a person has to decide.
    pub accept_loss: Option<u16>,
    /// Every other declared data node.
    pub peers: BTreeMap<u16, Peer>,
    /// What each declared Sentinel says.
    pub sentinels: Vec<SentinelAnswer>,
    /// Milliseconds since a majority of them answered last, whatever it said; 0 while it does.
    pub sentinels_silent_milliseconds: u64,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It answered.
    Answers {
        /// What its engine is doing.
        activity: Activity,
        /// Its record; `None`: its volume is empty.
        lineage: Option<Lineage>,
    },
    /// It has not answered.
    Silent {
        /// For how long, in milliseconds.
        milliseconds: u64,
    },
}

/// What one Sentinel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentinelAnswer {
    /// The primary is the data node with this ordinal.
    Names(u16),
    /// It answers, but monitors nothing, or an address that no declared node has.
    NamesNobody,
    /// It does not answer.
    Silent,
}

/// What to do with the engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum BootDecision {
    /// Start it as primary.
    StartPrimary(PrimaryReason),
    /// Start it as a replica.
    Follow {
        /// Ordinal of the primary.
        primary: u16,
        /// Whether the Sentinels may promote it before it has synced: its own data is the best known.
        electable: bool,
    },
    /// Ask a Sentinel for a failover at once, keep the engine off, and decide again.
    AskForFailover,
    /// Keep the engine off and decide again.
    Wait(WaitReason),
}

/// Why a node may be primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PrimaryReason {
    /// The layer has one node.
    OnlyNode,
    /// The Sentinels name it and nobody who answers has newer data (rule 2).
    NamedAndNewest,
    /// Nobody is named, every peer answers, and none has newer data (rule 3).
    NewestOfAll,
    /// Every node is empty, and the layer is new or keeps nothing (rule 4).
    EverybodyEmpty,
    /// Peers have been silent for a minute; of those that answer it has the newest data (rule 5).
    NewestOfThoseLeft,
    /// A person chose its data.
    LossAccepted,
}

/// Why a node waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WaitReason {
    /// The named primary has no data, this node has.
    NamedPrimaryIsEmpty,
    /// The named primary serves data that is older than this node's.
    NamedPrimaryIsOlder,
    /// A peer has newer data and is not started yet.
    PeerIsNewer,
    /// A peer with the same data and a lower ordinal goes first.
    PeerGoesFirst,
    /// A peer has not answered yet.
    PeerIsSilent,
    /// Most Sentinels have not answered yet, and they may remember a primary.
    SentinelsAreSilent,
    /// More than one peer serves as primary and the Sentinels name neither.
    SeveralPrimaries,
    /// Data that cannot be ordered: a person decides (`redoubt.dev/accept-loss`).
    Unrelated,
    /// The layer had data and no node has it now: a person decides.
    DataMissing,
    /// Too few nodes answer to tell a loss from a partition.
    TooFewAnswer,
}

impl WaitReason {
    /// Whether waiting alone cannot end it, so that a person's `accept-loss` is consulted.
    const fn needs_a_person(self) -> bool {
        matches!(self, Self::Unrelated | Self::DataMissing | Self::NamedPrimaryIsOlder | Self::NamedPrimaryIsEmpty)
    }
}

/// How one record stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The first has all that the second has, and more.
    Newer,
    /// The second has more.
    Older,
    /// The same.
    Equal,
    /// They cannot be ordered.
    Unrelated,
}

/// Orders two records. A whole dataset beats a half one, this layer's beats a predecessor's, then the higher epoch wins,
/// then the higher term; within one history the offset decides, and a history that began with all of another's data is the newer.
/// (A promotion raises the term, too; but a replica that followed the promoted one for a moment may have been stopped before it
/// heard of that, and the promoted one before its agent had looked.)
pub fn compare(first: &Lineage, second: &Lineage, layer_uid: &str) -> Comparison {
    let rank = |lineage: &Lineage| (lineage.synced, lineage.layer_uid == layer_uid, lineage.epoch, lineage.term);
    match rank(first).cmp(&rank(second)) {
        std::cmp::Ordering::Greater => return Comparison::Newer,
        std::cmp::Ordering::Less => return Comparison::Older,
        std::cmp::Ordering::Equal => {}
    }
    if first.replication_id != second.replication_id {
        return match (continues(first, second), continues(second, first)) {
            (true, false) => Comparison::Newer,
            (false, true) => Comparison::Older,
            _ => Comparison::Unrelated,
        };
    }
    match first.offset.cmp(&second.offset) {
        std::cmp::Ordering::Greater => Comparison::Newer,
        std::cmp::Ordering::Less => Comparison::Older,
        std::cmp::Ordering::Equal => Comparison::Equal,
    }
}

/// Whether the first's history began where the second's had come to, or later
/// ([Redis](https://redis.io/docs/latest/operate/oss_and_stack/management/replication/), "Replication ID explained").
fn continues(first: &Lineage, second: &Lineage) -> bool {
    first.previous_replication_id.as_ref() == Some(&second.replication_id)
        && first.previous_offset.is_some_and(|branch| second.offset <= branch)
}

/// Whether the peer may take over from us: it serves as a replica of our own line of data. Its record may be a second
/// old, so its offset says nothing.
fn is_synced_replica(peer: &Peer, own: Option<&Lineage>) -> bool {
    let Peer::Answers { activity: Activity::Serving, lineage: Some(theirs) } = peer else { return false };
    theirs.role == Role::Replica
        && theirs.synced
        && own.is_none_or(|own| (theirs.epoch, theirs.term) >= (own.epoch, own.term))
}

impl BootFacts {
    /// The node that a majority of the declared Sentinels names.
    fn named(&self) -> Option<u16> {
        self.sentinels.iter().find_map(|answer| match answer {
            SentinelAnswer::Names(ordinal) => {
                let votes = self.sentinels.iter().filter(|other| *other == answer).count();
                (votes > self.sentinels.len() / 2).then_some(*ordinal)
            }
            SentinelAnswer::NamesNobody | SentinelAnswer::Silent => None,
        })
    }

    /// Whether a majority of the declared Sentinels answers, whatever it says.
    fn sentinels_answer(&self) -> bool {
        let answering = self.sentinels.iter().filter(|answer| **answer != SentinelAnswer::Silent).count();
        answering > self.sentinels.len() / 2
    }

    /// Whether enough of the layer answers to tell "they are lost" from "I am cut off": a majority of the declared
    /// Sentinels, or of the declared data nodes with this one.
    fn reaches_a_majority(&self) -> bool {
        let answering = 1 + self.peers.values().filter(|peer| matches!(peer, Peer::Answers { .. })).count();
        self.sentinels_answer() || answering > self.peers.len().div_ceil(2)
    }

    /// Records of the peers that answer and hold data.
    fn records(&self) -> impl Iterator<Item = (u16, Activity, &Lineage)> {
        self.peers.iter().filter_map(|(ordinal, peer)| match peer {
            Peer::Answers { activity, lineage: Some(lineage) } => Some((*ordinal, *activity, lineage)),
            _ => None,
        })
    }

    /// Peers that have not answered, with the time since.
    fn silences(&self) -> impl Iterator<Item = u64> {
        self.peers.values().filter_map(|peer| match peer {
            Peer::Silent { milliseconds } => Some(*milliseconds),
            Peer::Answers { .. } => None,
        })
    }
}

/// The boot rule.
pub fn decide(facts: &BootFacts) -> BootDecision {
    let decision = match (facts.mode, facts.named()) {
        (Mode::Standalone, _) => alone(facts),
        (_, Some(named)) if named == facts.own_ordinal => named_primary(facts),
        (_, Some(named)) => named_other(facts, named),
        (_, None) => nobody_named(facts),
    };
    match decision {
        BootDecision::Wait(reason) if reason.needs_a_person() && facts.accept_loss == Some(facts.own_ordinal) => {
            BootDecision::StartPrimary(PrimaryReason::LossAccepted)
        }
        decision => decision,
    }
}

fn alone(facts: &BootFacts) -> BootDecision {
    if facts.own.is_none() && facts.initialised && facts.keeps_data {
        return BootDecision::Wait(WaitReason::DataMissing);
    }
    BootDecision::StartPrimary(PrimaryReason::OnlyNode)
}

/// Rule 1: the majority names another node.
fn named_other(facts: &BootFacts, named: u16) -> BootDecision {
    let follow = |electable| BootDecision::Follow { primary: named, electable };
    let (activity, theirs) = match facts.peers.get(&named) {
        Some(Peer::Answers { activity, lineage }) => (*activity, lineage.as_ref()),
        // A server that follows a dead primary loses nothing, and the Sentinels need somebody to promote. Before that it
        // must be certain that the named one is gone, and that nobody who answers has more.
        Some(Peer::Silent { milliseconds }) => {
            return follow(*milliseconds >= SILENT_PEER_MILLISECONDS && is_best_of_those_left(facts));
        }
        None => return nobody_named(facts),
    };
    match (&facts.own, theirs) {
        (None, Some(_)) => follow(false),
        (None, None) if activity == Activity::Serving => follow(false),
        (None, None) => everybody_empty(facts, Some(named)),
        (Some(_), None) => {
            // An empty node that is not started does not start while we answer: with us as a replica the Sentinels have
            // somebody to elect.
            if activity == Activity::Deciding && is_best_of_those_left(facts) {
                follow(true)
            } else {
                BootDecision::Wait(WaitReason::NamedPrimaryIsEmpty)
            }
        }
        (Some(own), Some(theirs)) => match compare(own, theirs, &facts.layer_uid) {
            Comparison::Older | Comparison::Equal => follow(false),
            Comparison::Newer if activity == Activity::Deciding && is_best_of_those_left(facts) => follow(true),
            Comparison::Newer => BootDecision::Wait(WaitReason::NamedPrimaryIsOlder),
            // Same epoch and term in two histories: the named one has it from the Sentinels, if it serves.
            Comparison::Unrelated if activity == Activity::Serving => follow(false),
            Comparison::Unrelated => BootDecision::Wait(WaitReason::Unrelated),
        },
    }
}

/// Rule 2: the majority names this node.
fn named_primary(facts: &BootFacts) -> BootDecision {
    let own = facts.own.as_ref();
    if own.is_none_or(|own| !own.clean_stop) && facts.peers.values().any(|peer| is_synced_replica(peer, own)) {
        return BootDecision::AskForFailover;
    }
    let Some(own) = own else {
        let mut records = facts.records().map(|(_, _, theirs)| theirs).peekable();
        return if records.peek().is_none() {
            everybody_empty(facts, Some(facts.own_ordinal))
        } else if records.any(|theirs| theirs.synced) {
            BootDecision::Wait(WaitReason::PeerIsNewer)
        } else {
            // Replicas that began empty and follow us in vain: nobody has data, and nobody will.
            BootDecision::Wait(WaitReason::DataMissing)
        };
    };
    for (_, activity, theirs) in facts.records() {
        match compare(own, theirs, &facts.layer_uid) {
            Comparison::Older if activity == Activity::Serving => return BootDecision::AskForFailover,
            Comparison::Older => return BootDecision::Wait(WaitReason::PeerIsNewer),
            Comparison::Newer | Comparison::Equal | Comparison::Unrelated => {}
        }
    }
    if !own.synced {
        return BootDecision::Wait(WaitReason::DataMissing);
    }
    if !own.clean_stop && facts.silences().any(|silence| silence < UNCLEAN_PRIMARY_PATIENCE_MILLISECONDS) {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    BootDecision::StartPrimary(PrimaryReason::NamedAndNewest)
}

/// Rules 3 to 5: no majority names anybody.
fn nobody_named(facts: &BootFacts) -> BootDecision {
    let mut primaries = facts
        .records()
        .filter(|(_, activity, theirs)| *activity == Activity::Serving && theirs.role == Role::Primary)
        .map(|(ordinal, _, theirs)| (ordinal, theirs));
    if let Some((ordinal, theirs)) = primaries.next() {
        if primaries.next().is_some() {
            return BootDecision::Wait(WaitReason::SeveralPrimaries);
        }
        return match facts.own.as_ref().map(|own| compare(own, theirs, &facts.layer_uid)) {
            None | Some(Comparison::Older | Comparison::Equal) => {
                BootDecision::Follow { primary: ordinal, electable: false }
            }
            Some(Comparison::Newer) => BootDecision::Wait(WaitReason::NamedPrimaryIsOlder),
            Some(Comparison::Unrelated) => BootDecision::Wait(WaitReason::Unrelated),
        };
    }
    if facts.silences().any(|silence| silence < SILENT_PEER_MILLISECONDS) {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    let everybody_answers = facts.silences().next().is_none();
    if facts.own.is_none() && facts.records().next().is_none() {
        return everybody_empty(facts, None);
    }
    if !everybody_answers && !facts.reaches_a_majority() {
        return BootDecision::Wait(WaitReason::TooFewAnswer);
    }
    if !facts.sentinels_answer() && facts.sentinels_silent_milliseconds < SILENT_SENTINELS_MILLISECONDS {
        return BootDecision::Wait(WaitReason::SentinelsAreSilent);
    }
    match standing(facts) {
        Ok(own) if everybody_answers && own.synced => BootDecision::StartPrimary(PrimaryReason::NewestOfAll),
        Ok(own) if own.synced && own.link_up => BootDecision::StartPrimary(PrimaryReason::NewestOfThoseLeft),
        Ok(_) => BootDecision::Wait(WaitReason::DataMissing),
        Err(reason) => BootDecision::Wait(reason),
    }
}

/// Rule 4. The one that the Sentinels name begins, else the lowest ordinal; a silent peer may hold data.
fn everybody_empty(facts: &BootFacts, named: Option<u16>) -> BootDecision {
    if facts.silences().next().is_some() {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    if facts.initialised && facts.keeps_data {
        return BootDecision::Wait(WaitReason::DataMissing);
    }
    let first = facts.peers.keys().copied().chain([facts.own_ordinal]).min();
    if named.or(first) != Some(facts.own_ordinal) {
        return BootDecision::Wait(WaitReason::PeerGoesFirst);
    }
    BootDecision::StartPrimary(PrimaryReason::EverybodyEmpty)
}

/// The own record, if nobody who answers has a better one; equal ones yield to the lowest ordinal.
fn standing(facts: &BootFacts) -> Result<&Lineage, WaitReason> {
    let Some(own) = &facts.own else { return Err(WaitReason::PeerIsNewer) };
    let mut verdict = Ok(own);
    for (ordinal, _, theirs) in facts.records() {
        match compare(own, theirs, &facts.layer_uid) {
            Comparison::Older => return Err(WaitReason::PeerIsNewer),
            Comparison::Equal if ordinal < facts.own_ordinal => verdict = Err(WaitReason::PeerGoesFirst),
            Comparison::Newer | Comparison::Equal => {}
            Comparison::Unrelated => verdict = Err(WaitReason::Unrelated),
        }
    }
    verdict
}

/// A link that was down may mean that the primary went on alone; but where everybody answers, nobody has more than what
/// the records say. (All pods die within a moment of each other: the replicas' last word is that their link is down.)
fn is_best_of_those_left(facts: &BootFacts) -> bool {
    let everybody_answers = facts.silences().next().is_none();
    (everybody_answers || facts.reaches_a_majority())
        && standing(facts).is_ok_and(|own| own.synced && (own.link_up || everybody_answers))
}
