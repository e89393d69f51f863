//! What the boot rule is told of the layer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::times::{SILENT_PEER, SILENT_PEER_OF_A_CACHE, SILENT_SENTINELS, WITHOUT_ANSWER};
use crate::model::lineage::{Activity, Lineage};
use crate::model::{Mode, Role};

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
    /// The data node whose data a person chose, where that [is in force](super::in_force()).
    pub accept_loss: Option<u16>,
    /// The data node that carries out a person's decision now: this one began to, or the chosen one says that it does.
    pub accepting: Option<u16>,
    /// Every other declared data node.
    pub peers: BTreeMap<u16, Peer>,
    /// Silence of a primary after which a Sentinel takes it for down.
    pub detection: Duration,
    /// What each declared Sentinel says.
    pub sentinels: Vec<SentinelAnswer>,
    /// Since a majority of them answered last, whatever it said; zero while it does.
    pub sentinels_silent: Duration,
    /// For how long the rule has asked for a failover in vain; zero while it does not ask.
    pub refused: Duration,
    /// For how long this node, as a primary, has seen the Sentinels name one that answers and is none; zero while they do not.
    pub unnamed: Duration,
    /// For how long this node has decided, has had no primary to follow, or as a primary has seen another one.
    pub waited: Duration,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The agent answered over HTTP.
    Answers {
        /// What its engine is doing.
        activity: Activity,
        /// Its record; `None`: its volume is empty.
        lineage: Option<Lineage>,
    },
    /// It has not answered.
    Silent {
        /// Since its last answer.
        time: Duration,
    },
}

impl Peer {
    /// Whether its engine runs, or may: one missed answer says nothing.
    pub fn may_run(&self) -> bool {
        match self {
            Self::Answers { activity, .. } => !matches!(activity, Activity::Deciding),
            Self::Silent { time } => *time < WITHOUT_ANSWER,
        }
    }
}

/// Which primary one Sentinel names, and under which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentinelAnswer {
    /// The primary is the data node with this ordinal.
    Names(u16),
    /// It answers, but monitors nothing, or an address that no declared node has.
    NamesNone,
    /// It does not answer.
    Silent,
}

impl BootFacts {
    /// The node that a majority of the declared Sentinels names.
    pub(super) fn named(&self) -> Option<u16> {
        self.sentinels.iter().find_map(|answer| match answer {
            SentinelAnswer::Names(ordinal) => {
                let votes = self.sentinels.iter().filter(|other| *other == answer).count();
                (votes > self.sentinels.len() / 2).then_some(*ordinal)
            }
            SentinelAnswer::NamesNone | SentinelAnswer::Silent => None,
        })
    }

    /// Whether a majority of the declared Sentinels answers, whatever it says.
    pub(super) fn sentinels_answer(&self) -> bool {
        let answering = self.sentinels.iter().filter(|answer| **answer != SentinelAnswer::Silent).count();
        answering > self.sentinels.len() / 2
    }

    /// Whether it is known that no majority names a node: they answer, or were silent for longer than a moment.
    pub(super) fn is_certain_of_sentinels(&self) -> bool {
        self.sentinels_answer() || self.sentinels_silent >= SILENT_SENTINELS
    }

    /// Whether most data nodes answer, this one included.
    pub(super) fn most_data_nodes_answer(&self) -> bool {
        let answering = 1 + self.peers.values().filter(|peer| matches!(peer, Peer::Answers { .. })).count();
        answering > self.peers.len().div_ceil(2)
    }

    /// Records of the peers that answer and hold data.
    pub(super) fn records(&self) -> impl Iterator<Item = (u16, Activity, &Lineage)> {
        self.peers.iter().filter_map(|(ordinal, peer)| match peer {
            Peer::Answers { activity, lineage: Some(lineage) } => Some((*ordinal, *activity, lineage)),
            _ => None,
        })
    }

    /// Those of them that serve as a primary.
    pub(super) fn serving_primaries(&self) -> impl Iterator<Item = (u16, &Lineage)> {
        let serving = self
            .records()
            .filter(|(_, activity, theirs)| *activity == Activity::Serving && theirs.role == Role::Primary);
        serving.map(|(ordinal, _, theirs)| (ordinal, theirs))
    }

    /// Whether another data node serves as a primary.
    pub fn has_rival(&self) -> bool {
        self.serving_primaries().next().is_some()
    }

    /// Whether the Sentinels name another data node that answers and does not serve as a primary.
    pub fn names_no_primary(&self) -> bool {
        let is_other = |named: &u16| matches!(self.peers.get(named), Some(Peer::Answers { .. }));
        let serves = |named: u16| self.serving_primaries().any(|(ordinal, _)| ordinal == named);
        self.named().filter(is_other).is_some_and(|named| !serves(named))
    }

    /// Peers that have not answered, with the time since.
    pub(super) fn silences(&self) -> impl Iterator<Item = Duration> {
        self.peers.values().filter_map(|peer| match peer {
            Peer::Silent { time } => Some(*time),
            Peer::Answers { .. } => None,
        })
    }

    /// Whether every peer answers.
    pub(super) fn all_peers_answer(&self) -> bool {
        self.silences().next().is_none()
    }

    /// Whether that peer says that its engine reads its files, or serves as a primary.
    pub(super) fn is_at_work(&self, ordinal: u16) -> bool {
        match self.peers.get(&ordinal) {
            Some(Peer::Answers { activity: Activity::Loading, .. }) => true,
            Some(Peer::Answers { activity: Activity::Serving, lineage: Some(theirs) }) => theirs.role == Role::Primary,
            Some(Peer::Answers { .. } | Peer::Silent { .. }) | None => false,
        }
    }

    /// How long a silent peer blocks.
    pub(super) const fn silence_that_blocks(&self) -> Duration {
        if self.keeps_data { SILENT_PEER } else { SILENT_PEER_OF_A_CACHE }
    }

    /// Whether a silent peer still blocks.
    pub(super) fn awaits_a_peer(&self) -> bool {
        self.silences().any(|silence| silence < self.silence_that_blocks())
    }

    /// Whether no node that answers has data that could be lost. What a layer keeps nothing of counts only where it is whole: a
    /// replica that began empty, and follows an empty primary in vain, has a record as well.
    pub(super) fn all_are_empty(&self) -> bool {
        let is_nothing = |lineage: &Lineage| !self.keeps_data && !lineage.synced;
        self.own.as_ref().is_none_or(is_nothing) && self.records().all(|(_, _, theirs)| is_nothing(theirs))
    }
}
