//! Moving a healthy primary without losing a write (DESIGN §2 "Changing things without loss").
//!
//! A plain `SENTINEL FAILOVER` leaves the old primary taking writes for some ten seconds and loses them all
//! (`dataplane.md` §4.2). Here writers are paused first, every replica that could be elected has everything before the
//! election, and the old primary follows the new one before anybody is let go on. Killed after any command the layer heals:
//! a pause ends by itself, and an election that has begun is the Sentinels' to finish.

mod fitness;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, Endpoint};
use super::error::Error as CommandError;
use super::{sentinel, server};
use crate::model::{Address, Offset, Role};

/// How long replicas may take to catch up with the paused primary. They are online and writers stand still: it is one
/// acknowledgement, sent at once.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Between two looks at a server that is about to change. Not a wait in place of a condition: the condition is asked anew.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a promotion that a Sentinel ordered before it ended may take to be seen.
const LAST_ORDER: Duration = Duration::from_millis(300);

/// How long a Sentinel may take to see a priority that was just set: it looks in each tick then, every 50 to 100 ms.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

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
    pub ending: BTreeSet<Address>,
    /// The Sentinels; the first fit one acts.
    pub sentinels: Vec<Endpoint>,
    /// `failover-timeout`: the pause outlasts it, so that no writer slips in while the Sentinels still try.
    pub failover_timeout: Duration,
    /// How long the election may take before it is given up.
    pub patience: Duration,
}

/// A move that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
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
    #[error("the Sentinel gave up and promoted nobody")]
    NobodyPromoted,
    /// Somebody may have been ordered to become primary, and may yet become it.
    #[error("it is not known yet whether anybody takes over from {0}")]
    Undecided(Address),
    /// Another is primary, and the one before could not be told.
    #[error("{to} is primary, and {from} could not be told")]
    NotDemoted {
        /// The primary before.
        from: Address,
        /// The primary now.
        to: Address,
        /// Cause.
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
    pub fn leaves_paused(&self) -> bool {
        matches!(self, Self::Undecided(_) | Self::NotDemoted { .. })
    }
}

/// A connected replica that may take over.
struct Candidate {
    address: Address,
    connection: Connection,
}

/// A command of a move, carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica that is not fit got priority 0. Its agent restores it when it is in sync.
    UnfitMarked(Address),
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

/// Moves the primary. On an error writers are let go on where they were, once it is sure that nobody else becomes primary.
pub async fn switchover(request: &Switchover) -> Result<Moved, Error> {
    switchover_watched(request, async |_| ()).await
}

/// As [`switchover`], and calls `watch` after each command: tests end the mover there.
pub async fn switchover_watched(request: &Switchover, watch: impl AsyncFn(Step)) -> Result<Moved, Error> {
    let (from_address, from_endpoint) = &request.from;
    let from = Connection::open(from_endpoint).await?;
    let candidates = fitness::fit_candidates(request, &from, &watch).await?;
    let actor = fitness::fit_sentinel(request, &candidates, &watch).await?;
    let paused_at = Instant::now();
    let pause = request.failover_timeout + request.patience;
    server::pause_writes(&from, pause.as_millis().try_into().unwrap_or(u64::MAX)).await?;
    watch(Step::WritesPaused).await;
    let result = match elect(request, &from, &actor, &candidates, &watch).await {
        Err(error) if error.leaves_paused() => return Err(error),
        known => known,
    };
    // A demoted server answers writers with READONLY.
    let unpaused = server::unpause(&from).await;
    watch(Step::WritesResumed).await;
    let to = result?;
    unpaused?;
    server::cut_clients(&from).await?;
    watch(Step::ClientsCut).await;
    tracing::info!(from = %from_address, %to, milliseconds = paused_at.elapsed().as_millis(), "primary moved");
    Ok(Moved { to, paused: paused_at.elapsed() })
}

/// Everything that happens while writers stand still: catch up, elect, demote.
async fn elect(
    request: &Switchover,
    from: &Connection,
    actor: &Connection,
    candidates: &[Candidate],
    watch: &impl AsyncFn(Step),
) -> Result<Address, Error> {
    // Read after the pause: what is acknowledged is in it.
    let offset = server::replication(from).await?.offset();
    for candidate in candidates {
        let caught_up = timeout(CATCH_UP, reaches(&candidate.connection, offset)).await;
        caught_up.map_err(|_| Error::Lagging(candidate.address.clone()))??;
    }
    if let Err(error) = sentinel::failover(actor, &request.master_name).await {
        // `NOGOODSLAVE`, `INPROG`: it answered, and does not begin. One that is silent may have begun.
        if let Some(words) = error.server_text() {
            return Err(Error::Refused(words));
        }
        tracing::warn!(%error, "no answer to the order");
    }
    watch(Step::FailoverOrdered).await;
    let promoted = promoted(request, actor, candidates).await?;
    let (to, port) = (&promoted.address.0, request.from.1.port);
    server::replica_of(from, to, port).await.map_err(|source| Error::NotDemoted {
        from: request.from.0.clone(),
        to: promoted.address.clone(),
        source: Box::new(source),
    })?;
    watch(Step::PrimaryDemoted).await;
    // The Sentinels would do so too, one after the other; until then min-replicas-to-write may refuse writers.
    for other in candidates.iter().filter(|other| other.address != promoted.address) {
        match server::replica_of(&other.connection, to, port).await {
            Ok(()) => watch(Step::ReplicaPointed(other.address.clone())).await,
            Err(error) => tracing::warn!(replica = %other.address, %error, "left to the Sentinels"),
        }
    }
    Ok(promoted.address.clone())
}

async fn reaches(connection: &Connection, offset: Offset) -> Result<(), CommandError> {
    while server::replication(connection).await?.offset() < offset {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits for the promotion, or until the Sentinel that was to make it says that it gave up. One that is gone (where all pods end
/// at once, within milliseconds) may have given its order.
async fn promoted<'a>(
    request: &Switchover,
    actor: &Connection,
    candidates: &'a [Candidate],
) -> Result<&'a Candidate, Error> {
    let promotion = first_primary(request, candidates);
    let mut promotion = std::pin::pin!(promotion);
    let undecided = || Error::Undecided(request.from.0.clone());
    tokio::select! {
        promoted = &mut promotion => Ok(promoted),
        () = sleep(request.patience) => Err(undecided()),
        end = end_of_failover(request, actor) => match end {
            End::GivenUp => Err(Error::NobodyPromoted),
            End::Done => timeout(request.patience, &mut promotion).await.map_err(|_| undecided()),
            // What it ordered with its last breath is done soon.
            End::Gone => timeout(LAST_ORDER, &mut promotion).await.map_err(|_| undecided()),
        },
    }
}

/// How the failover of a Sentinel ended, in its own words.
enum End {
    /// It goes on watching the primary that was.
    GivenUp,
    /// It watches another.
    Done,
    /// It does not answer any more.
    Gone,
}

/// Resolves when the Sentinel has no failover under way. It has one from the moment on in which it takes the order.
async fn end_of_failover(request: &Switchover, actor: &Connection) -> End {
    loop {
        match sentinel::master(actor, &request.master_name).await {
            Ok(Some(master)) if master.flags.contains("failover_in_progress") => {}
            Ok(Some(master)) if master.address == request.from.0 => return End::GivenUp,
            Ok(_) => return End::Done,
            Err(_) => return End::Gone,
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The Sentinels cut all connections of the replica that they promote, ours too: whoever does not answer is asked over a
/// new one.
async fn first_primary<'a>(request: &Switchover, candidates: &'a [Candidate]) -> &'a Candidate {
    let mut connections: Vec<Connection> = candidates.iter().map(|candidate| candidate.connection.clone()).collect();
    loop {
        for (candidate, connection) in candidates.iter().zip(&mut connections) {
            match server::replication(connection).await {
                Ok(info) if info.role() == Some(Role::Primary) => return candidate,
                Ok(_) => {}
                Err(_) => {
                    let found = request.others.iter().find(|(address, _)| *address == candidate.address);
                    let Some((_, endpoint)) = found else { continue };
                    if let Ok(reopened) = Connection::open(endpoint).await {
                        *connection = reopened;
                    }
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
}
