//! The lineage record: what a data node knew of its own data when it last could write it down.
//!
//! An append-only file that is loaded again restores neither the replication id nor the offset, so after a restart the
//! servers themselves cannot say whose data is newer. The agent therefore writes this record, with `fsync`, once a second
//! and at each change of role; peers read it over HTTP (`GET /lineage`, [`LineageAnswer`]).

use serde::{Deserialize, Serialize};

use super::audit::AuditMark;
use super::cluster::ViewAnswer;
use super::position::{Position, Tail, TrailPoint};
use super::{Offset, ReplicationId, Role};

/// Version of the record's format. A reader refuses a newer one instead of guessing.
pub const LINEAGE_FORMAT: u32 = 1;

/// The largest epoch, term, offset or count of keys that is believed. JSON keeps numbers exact up to here, and no layer gets near it:
/// a larger one comes from a damaged disk or from a peer that is not what it says.
pub const LARGEST_NUMBER: u64 = 1 << 53;

/// The term after another one. It stops at [`LARGEST_NUMBER`].
pub const fn next_term(term: u64) -> u64 {
    if term < LARGEST_NUMBER { term + 1 } else { LARGEST_NUMBER }
}

/// One node's record, stored as JSON at `/data/redoubt/lineage.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// [`LINEAGE_FORMAT`] of the writer.
    pub format: u32,
    /// UID of the layer that wrote the data. Another UID: a volume that a re-created layer adopts.
    pub layer_uid: String,
    /// The Sentinels' `config-epoch` of the primary whose data this is (0: none seen yet). Each failover raises it.
    pub epoch: u64,
    /// Count of starts and promotions as primary in this line of data; a replica copies its primary's once it is synced.
    /// It orders what the epoch cannot: a primary that restarted from its file has a new replication id in the same epoch.
    pub term: u64,
    /// Role at the time of writing.
    pub role: Role,
    /// Replication history of the data.
    pub replication_id: ReplicationId,
    /// The history before the last promotion (`master_replid2`), if any.
    pub previous_replication_id: Option<ReplicationId>,
    /// How much of that history the data holds (`second_repl_offset`). `None`: there is none, or it is an older agent's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_offset: Option<Offset>,
    /// How far: own offset as primary, processed offset as replica.
    pub offset: Offset,
    /// Whether the data is whole: always for a primary; for a replica, its first sync with that primary was done.
    pub synced: bool,
    /// Whether the link to the primary was up (true for a primary).
    pub link_up: bool,
    /// Number of keys: tells an empty dataset from a full one.
    pub keys: u64,
    /// Whether the server ended by our order, with everything written (and, from a primary, sent).
    pub clean_stop: bool,
    /// Whether the data is in the append-only file, and not in the snapshot. What is wanted may be another: a server that is told to
    /// have one begins by writing all data into it, and its old one may still be there. `None`: an older agent's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_only: Option<bool>,
    /// The decision of a person (`redoubt.dev/accept-loss`) that was carried out, or overtaken, while it still stood in the node's
    /// document: it decides no later incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u16>,
    /// Where the data in the files ends, of a node that ended suddenly: the record is one or two seconds old, and a snapshot is older.
    /// `None`: where the record says. It is read from the files at each start, and not part of the record on the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Box<Position>>,
}

impl Lineage {
    /// Where the data ends.
    pub fn position(&self) -> Position {
        self.held.as_deref().cloned().unwrap_or_else(|| self.recorded_position())
    }

    /// Where the data ends by the record alone.
    pub fn recorded_position(&self) -> Position {
        Position {
            replication_id: self.replication_id.clone(),
            offset: self.offset,
            epoch: self.epoch,
            term: self.term,
            tail: Tail::None,
            led: false,
            went_on: false,
        }
    }

    /// The record of the same data up to the offset that is known.
    pub(crate) fn without_tail(&self) -> Self {
        let held = self
            .held
            .as_deref()
            .map(|held| Box::new(Position { tail: Tail::None, led: false, went_on: false, ..held.clone() }));
        Self { held, ..self.clone() }
    }

    /// The record of files as they were when it was written, where they lost some of it since.
    pub(crate) fn before_loss(&self) -> Self {
        let lost = |position: &Position| matches!(position.tail, Tail::Bytes(bytes) if bytes < 0);
        Self { held: self.held.clone().filter(|held| !lost(held)), ..self.clone() }
    }

    /// Whether the data is known to hold no key. Data without a record has one that counts none ([`Lineage::is_of_unknown_origin`]).
    pub(crate) fn is_empty(&self) -> bool {
        self.keys == 0 && !self.is_of_unknown_origin()
    }

    /// Whether it stands for data that has no record, or a damaged one: nothing says whose it is, and how many keys it has.
    pub fn is_of_unknown_origin(&self) -> bool {
        self.layer_uid.is_empty()
    }

    /// The field whose number is above [`LARGEST_NUMBER`]. `None`: all can be believed.
    pub fn absurd_number(&self) -> Option<&'static str> {
        let numbers = [
            ("epoch", self.epoch),
            ("term", self.term),
            ("offset", self.offset.0),
            ("previousOffset", self.previous_offset.map_or(0, |offset| offset.0)),
            ("keys", self.keys),
            ("held.epoch", self.held.as_ref().map_or(0, |held| held.epoch)),
            ("held.term", self.held.as_ref().map_or(0, |held| held.term)),
            ("held.offset", self.held.as_ref().map_or(0, |held| held.offset.0)),
            ("held.tail", self.held.as_ref().map_or(0, |held| held.tail.magnitude())),
        ];
        numbers.into_iter().find(|(_, number)| *number > LARGEST_NUMBER).map(|(name, _)| name)
    }
}

/// What an agent answers to `GET /lineage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LineageAnswer {
    /// UID of the layer that the answering pod belongs to now: an answer of another layer is no answer.
    pub layer_uid: String,
    /// Ordinal of the data node.
    pub ordinal: u16,
    /// What its engine is doing.
    pub activity: Activity,
    /// Whether it knows that the layer had data: it is recorded as initialised, or the server of this very pod had keys.
    #[serde(default)]
    pub initialised: bool,
    /// Whether it carries out a person's decision for its own data: the others keep off until it is primary.
    #[serde(default)]
    pub accepting: bool,
    /// Why it waits for a person, in the rule's words (`WaitReason`). `None`: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_person: Option<String>,
    /// Its record; `None`: the volume holds none and no data (an empty node).
    pub lineage: Option<Lineage>,
    /// Whether the running engine has read its files: only then is what the record says known to be there.
    #[serde(default)]
    pub loaded: bool,
    /// The histories that its data contains.
    #[serde(default)]
    pub ancestry: Ancestry,
    /// What the node keeps aside on its volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<Aside>,
    /// What waits for a person at this node: its files do not load (then its engine does not run), or what it had finds no room to be
    /// kept aside. In words that name what to do. `None`: there is no such trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
    /// What its audit of the keys found last. `None`: it is an older agent, which makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditMark>,
    /// What its server believes of the Cluster, or believed last. `None`: the layer is none, or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewAnswer>,
    /// What the agent did about its server in the last minutes that a person should know of, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// The chain of histories that a node's data contains, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestry {
    /// The replication id whose ancestors these are.
    pub of: ReplicationId,
    /// Each history that ended in it or in one of the others.
    pub ancestors: Vec<Ancestor>,
}

/// A history that ended, and how much of it is contained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// How much of the history is contained.
    #[serde(flatten)]
    pub position: Position,
    /// Offsets of this data on the way to there, and the size of the node's append-only files at each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<TrailPoint>,
}

/// Data files that are no longer the node's dataset and that are not thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    /// Name of the folder below `/data/aside`: the time (UTC) and the reason.
    pub folder: String,
    /// Why the files were moved: damage, a full sync, or a decision of a person.
    pub reason: AsideReason,
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// Bytes of the files then.
    pub bytes: u64,
    /// The record of the data. `None`: there was none.
    pub lineage: Option<Lineage>,
}

/// Why data was kept aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AsideReason {
    /// The engine could not load it, and the node was filled from another.
    Damaged,
    /// The node follows a primary whose history is not known to contain it.
    Replaced,
    /// A person chose which node's data becomes the layer's (`redoubt.dev/accept-loss`).
    LossAccepted,
}

impl AsideReason {
    /// The reason as the end of a folder's name.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Replaced => "replaced",
            Self::LossAccepted => "loss-accepted",
        }
    }
}

/// What the engine next to an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Activity {
    /// The engine is not running: the boot rule is being asked.
    Deciding,
    /// The engine is reading its files, or is not sent yet what its primary writes: its first sync, or what follows it, is not done.
    Loading,
    /// The engine serves in the lineage's role.
    Serving,
    /// The pod is about to stop.
    Stopping,
}

/// How one record stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The first has all that the second has, and more.
    Newer,
    /// The second has more.
    Older,
    /// Both have the same.
    Equal,
    /// They cannot be ordered.
    Unrelated,
}

/// Orders two records. A whole dataset beats a half one, this layer's beats a predecessor's, then the higher epoch wins,
/// then the higher term; within one history the offset decides, and a history that began with all of another's data is the newer.
/// (A promotion raises the term, too; but a replica that followed the promoted one for a moment may have been stopped before it
/// heard of that, and the promoted one before its agent had looked.) All of this is of what the files hold ([`Lineage::held`]).
pub fn compare(first: &Lineage, second: &Lineage, layer_uid: &str) -> Comparison {
    let (own, theirs) = (first.position(), second.position());
    let rank = |of: &Lineage, at: &Position| (of.synced, of.layer_uid == layer_uid, at.epoch, at.term);
    match rank(first, &own).cmp(&rank(second, &theirs)) {
        std::cmp::Ordering::Greater => return Comparison::Newer,
        std::cmp::Ordering::Less => return Comparison::Older,
        std::cmp::Ordering::Equal => {}
    }
    if own.replication_id != theirs.replication_id {
        return match (continues(first, &own, &theirs), continues(second, &theirs, &own)) {
            (true, false) => Comparison::Newer,
            (false, true) => Comparison::Older,
            _ => Comparison::Unrelated,
        };
    }
    match own.order(&theirs) {
        std::cmp::Ordering::Greater => Comparison::Newer,
        std::cmp::Ordering::Less => Comparison::Older,
        std::cmp::Ordering::Equal => Comparison::Equal,
    }
}

/// Whether the history that the record's data ends in began where the other data had come to, or later
/// ([Redis](https://redis.io/docs/latest/operate/oss_and_stack/management/replication/), "Replication ID explained"). What a primary
/// wrote at its end and sent to no replica does not count.
fn continues(record: &Lineage, at: &Position, other: &Position) -> bool {
    let reached = if other.led { other.offset } else { other.reaches() };
    record.replication_id == at.replication_id
        && record.previous_replication_id.as_ref() == Some(&other.replication_id)
        && record.previous_offset.is_some_and(|branch| reached <= branch)
}
