//! Moving a healthy primary without losing a write (DESIGN §2 "Changing things without loss").
//!
//! A plain `SENTINEL FAILOVER` leaves the old primary taking writes for some ten seconds and loses them all
//! (`dataplane.md` §4.2). Here writers are paused first, every replica that could be elected has everything before the
//! election, and the old primary follows the new one before anybody is let go on. Killed after any command the layer heals:
//! a pause ends by itself, and an election that has begun is the Sentinels' to finish.

mod fitness;
mod request;

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) use self::request::SwitchoverResult;
use self::request::{Candidate, POLL_EVERY};
pub use self::request::{Error, Step, Switchover};
use super::connection::Connection;
use super::error::Error as CommandError;
use super::first_primary::first_primary;
use super::{sentinel, server};
use crate::model::{Address, Offset};

/// How long replicas may take to catch up with the paused primary. They are online and writers stand still: it is one
/// acknowledgement, sent at once.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How long a promotion that a Sentinel ordered before it ended may take to be seen.
const LAST_ORDER: Duration = Duration::from_millis(300);

/// Moves the primary. On an error writers are let go on where they were, once it is sure that no other node becomes primary.
pub async fn switchover(request: &Switchover) -> Result<SwitchoverResult, Error> {
    switchover_watched(request, async |_| ()).await
}

/// As [`switchover`], and calls `watch` after each command: tests end the mover there.
pub async fn switchover_watched(request: &Switchover, watch: impl AsyncFn(Step)) -> Result<SwitchoverResult, Error> {
    let (from_address, from_endpoint) = &request.from;
    let from = Connection::open(from_endpoint).await?;
    let candidates = fitness::fit_candidates(request, &from, &watch).await?;
    let actor = fitness::fit_sentinel(request, &candidates, &watch).await?;
    let paused_at = Instant::now();
    let pause = request.failover_timeout + request.election_timeout;
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
    Ok(SwitchoverResult { to, paused: paused_at.elapsed() })
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
    fitness::pass_over(candidates).await;
    if let Err(error) = sentinel::failover(actor, &request.master_name).await {
        // `NOGOODSLAVE`, `INPROG`: it answered, and does not begin. One that is silent may have begun.
        if let Some(words) = error.server_text() {
            return Err(Error::Refused(words));
        }
        tracing::warn!(%error, "no answer to the order");
    }
    watch(Step::FailoverOrdered).await;
    let promoted = tokio::select! {
        promoted = promoted(request, actor, candidates) => promoted?,
        never = keep_passed_over(candidates) => match never {},
    };
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

/// Sets again, until another is promoted, what keeps a replica from being elected that another is preferred to: its agent undoes it within
/// a fraction of a second, and the Sentinel may read it once more before it elects.
async fn keep_passed_over(candidates: &[Candidate]) -> Infallible {
    loop {
        sleep(POLL_EVERY).await;
        fitness::pass_over(candidates).await;
    }
}

async fn reaches(connection: &Connection, offset: Offset) -> Result<(), CommandError> {
    while server::replication(connection).await?.offset() < offset {
        sleep(POLL_EVERY).await;
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
    let server = |candidate: &Candidate| (candidate.endpoint.clone(), Some(candidate.connection.clone()));
    let promotion = first_primary(candidates.iter().map(server).collect(), Connection::open);
    let mut promotion = std::pin::pin!(promotion);
    let undecided = || Error::Undecided(request.from.0.clone());
    let index = tokio::select! {
        promoted = &mut promotion => Ok(promoted),
        () = sleep(request.election_timeout) => Err(undecided()),
        end = end_of_failover(request, actor) => match end {
            End::GivenUp => Err(Error::NonePromoted),
            End::Done => timeout(request.election_timeout, &mut promotion).await.map_err(|_| undecided()),
            // What it ordered with its last breath is done soon.
            End::Gone => timeout(LAST_ORDER, &mut promotion).await.map_err(|_| undecided()),
        },
    }?;
    Ok(&candidates[index])
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
            Ok(Some(master)) if master.is_failing_over() => {}
            Ok(Some(master)) if master.address == request.from.0 => return End::GivenUp,
            Ok(_) => return End::Done,
            Err(_) => return End::Gone,
        }
        sleep(POLL_EVERY).await;
    }
}
