//! What a planned move of the primary is asked for, what comes of it, and its steps.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::Address;
use crate::redis::connection::{Connection, Endpoint};
use crate::redis::error::Error as CommandError;

/// Between two polls of a server that is about to change. Not a wait in place of a condition: the condition is asked again.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(5);

/// How long a Sentinel may take to see a priority that was just set: it looks in each tick then, every 50 to 100 ms.
pub(super) const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A planned move of the primary.
#[derive(Clone, Debug)]
pub struct Switchover {
    /// Name of the primary in the Sentinels.
    pub master_name: String,
    /// The primary now, and the address that it announces.
    pub from: (Address, Endpoint),
    /// The other data nodes, by announced address.
    pub others: Vec<(Address, Endpoint)>,
    /// Those of them that are about to end: none of them is to take over.
    pub terminating: BTreeSet<Address>,
    /// The one that is to take over; `None`: the one that the Sentinels elect.
    pub to: Option<Address>,
    /// The Sentinels; the first fit one acts.
    pub sentinels: Vec<Endpoint>,
    /// `failover-timeout`: the pause outlasts it, so that no writer slips in while the Sentinels still try.
    pub failover_timeout: Duration,
    /// How long the election may take before it is given up.
    pub election_timeout: Duration,
}

/// A move that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchoverResult {
    /// The primary now.
    pub to: Address,
    /// How long writers stood still.
    pub paused: Duration,
}

/// Why the primary was not moved. It goes on serving, unpaused but where [`Error::leaves_paused`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server to move from is no primary (any more).
    #[error("{0} is not the primary")]
    NotPrimary(Address),
    /// No Sentinel answers that sees this primary healthy and no failover under way.
    #[error("no Sentinel can act: {0}")]
    NoFitSentinel(String),
    /// A Sentinel has a failover under way, which is over in a moment.
    #[error("{0} has a failover under way")]
    FailoverUnderWay(String),
    /// No replica is online with its link up and a priority above 0.
    #[error("no replica of {0} is fit to take over")]
    NoFitReplica(Address),
    /// A replica that could be elected did not catch up.
    #[error("replica {0} did not catch up with the paused primary")]
    Lagging(Address),
    /// The Sentinel that was to act would not: it sees something that it did not see a moment before.
    #[error("the Sentinel refused: {0}")]
    Refused(String),
    /// The Sentinel that acted gave the failover up without a promotion.
    #[error("the Sentinel gave up and promoted no replica")]
    NonePromoted,
    /// A replica may have been ordered to become primary, and may yet become it.
    #[error("it is not known yet whether anybody takes over from {0}")]
    Undecided(Address),
    /// Another is primary, and the one before took no order to follow it.
    #[error("cannot make {from} a replica of the new primary {to}")]
    NotDemoted {
        /// The primary before.
        from: Address,
        /// The primary now.
        to: Address,
        /// The command that failed.
        #[source]
        source: Box<CommandError>,
    },
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Error {
    /// Whether writers still wait at the old primary: what it took now might be lost. The pause ends by itself once the
    /// Sentinels have given up, or by its agent when it follows the new primary.
    pub(crate) fn leaves_paused(&self) -> bool {
        matches!(self, Self::Undecided(_) | Self::NotDemoted { .. })
    }
}

/// A connected replica that may take over.
pub(super) struct Candidate {
    pub(super) address: Address,
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
    /// Whether another is to take over: the Sentinels are to pass it over.
    pub(super) is_passed_over: bool,
}

/// A command of a move, carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica that is not fit got priority 0. Its agent restores it when it is in sync.
    UnfitMarked(Address),
    /// A replica that is fit got priority 0, because another is to take over. Its agent restores it in its next poll.
    PassedOver(Address),
    /// A Sentinel was made to ask its replicas in each tick. The mover, and its agent every few seconds, sets the usual pace.
    InfoPaced,
    /// Writers stand still. A pause ends by itself, or when the agent sees its server demoted.
    WritesPaused,
    /// A Sentinel took the order to fail over.
    FailoverOrdered,
    /// The old primary follows the new one. The Sentinel would order it too, seconds later.
    PrimaryDemoted,
    /// Another replica follows the new primary. The Sentinel would order it too.
    ReplicaPointed(Address),
    /// Writers go on, and learn that their server is no primary any more.
    WritesResumed,
    /// Clients of the old primary were cut.
    ClientsCut,
}
