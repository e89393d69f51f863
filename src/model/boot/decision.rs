//! What the boot rule may say.

use serde::Serialize;

/// What to do with the engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum BootDecision {
    /// Start the engine with its data as primary.
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

impl BootDecision {
    /// The word of a decision that only a person ends, as agents and status tell it; of any other decision its own.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::StartPrimary(_) => "StartPrimary",
            Self::Follow { .. } => "Follow",
            Self::AskForFailover => "AskForFailover",
            Self::Wait(reason) => reason.word(),
        }
    }
}

impl std::fmt::Display for BootDecision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StartPrimary(reason) => write!(formatter, "starts as primary ({reason:?})"),
            Self::Follow { primary, electable } => {
                let also = if *electable { ", and may be elected before it is in sync" } else { "" };
                write!(formatter, "follows redis-{primary}{also}")
            }
            Self::AskForFailover => formatter.write_str("asks the Sentinels for a failover"),
            Self::Wait(reason) => write!(formatter, "waits ({reason:?})"),
        }
    }
}

/// Why a node may be primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PrimaryReason {
    /// The layer has one node.
    OnlyNode,
    /// The Sentinels name it and no node that answers has newer data (rule 2).
    NamedAndNewest,
    /// No node is named, every peer answers, and none has newer data (rule 3).
    NewestOfAll,
    /// Every node that answers is empty, and the layer is new or keeps nothing (rule 4).
    EverybodyEmpty,
    /// Peers have been silent for long; of those that answer it has the newest data (rule 5).
    NewestOfThoseLeft,
    /// A person chose its data.
    LossAccepted,
}

/// Why a node waits. Some end by themselves, others by a person ([`super::needs_a_person`]).
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
    /// A replica of this node's own history serves, and its record does not reach yet what this node's record says.
    PeerCatchesUp,
    /// A peer has not answered yet.
    PeerIsSilent,
    /// Most Sentinels do not answer. They may remember a primary, and they are who elects.
    SentinelsAreSilent,
    /// More than one peer serves as primary and the Sentinels name neither.
    SeveralPrimaries,
    /// Data that cannot be ordered: a person decides (`redoubt.dev/accept-loss`).
    Unrelated,
    /// The layer had data and no node has it now: a person decides.
    DataMissing,
    /// Too few nodes answer to tell a loss from a partition.
    TooFewAnswer,
    /// A person chose this node's data, and a node that could overwrite it still runs its engine.
    OthersStepDown,
    /// A person chose another node's data, and that node is not primary yet.
    AnotherIsChosen,
}

impl WaitReason {
    /// Its word, as agents and status tell it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::NamedPrimaryIsEmpty => "NamedPrimaryIsEmpty",
            Self::NamedPrimaryIsOlder => "NamedPrimaryIsOlder",
            Self::PeerIsNewer => "PeerIsNewer",
            Self::PeerGoesFirst => "PeerGoesFirst",
            Self::PeerCatchesUp => "PeerCatchesUp",
            Self::PeerIsSilent => "PeerIsSilent",
            Self::SentinelsAreSilent => "SentinelsAreSilent",
            Self::SeveralPrimaries => "SeveralPrimaries",
            Self::Unrelated => "Unrelated",
            Self::DataMissing => "DataMissing",
            Self::TooFewAnswer => "TooFewAnswer",
            Self::OthersStepDown => "OthersStepDown",
            Self::AnotherIsChosen => "AnotherIsChosen",
        }
    }

    /// Whether waiting alone may not end it, so that a person's `accept-loss` is consulted at once.
    pub(super) const fn needs_a_person(self) -> bool {
        match self {
            Self::Unrelated
            | Self::DataMissing
            | Self::NamedPrimaryIsOlder
            | Self::NamedPrimaryIsEmpty
            | Self::SeveralPrimaries
            | Self::SentinelsAreSilent
            | Self::TooFewAnswer => true,
            Self::PeerIsNewer
            | Self::PeerGoesFirst
            | Self::PeerCatchesUp
            | Self::PeerIsSilent
            | Self::OthersStepDown
            | Self::AnotherIsChosen => false,
        }
    }
}
