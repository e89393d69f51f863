//! Removes the keys of caches that begin alike, where somebody asked for it: on the primary, page by page, for a small part of the
//! server's time.
//!
//! Where it stands in the keyspace is kept here only: a primary that takes over, and an agent that starts again, go through all keys
//! once more, which removes nothing twice.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::chain;
use super::config::Environment;
use super::state::State;
use crate::model::Role;
use crate::model::prefix_job::{JobState, PrefixJob};
use crate::redis::{Connection, Result, prefix_jobs, server};

/// Between two looks for jobs.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The pause after a page, in times of what the page took: the server spends at most a twentieth of its time on jobs.
const PAUSE: u32 = 19;
/// The longest pause: a page that took long was held up by others.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Between two notes of how far a job is.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Looks for jobs, and carries them out; for ever.
pub(super) async fn run(environment: &Environment, state: &State) {
    loop {
        sleep(LOOK_EVERY).await;
        let is_primary = state.lineage().is_some_and(|lineage| lineage.role == Role::Primary);
        if state.config().caches.is_empty() || !state.is_loaded() || !is_primary {
            continue;
        }
        if let Err(error) = look(environment, state).await {
            tracing::debug!(error = %chain(&error), "the caches' jobs are looked at again");
        }
    }
}

async fn look(environment: &Environment, state: &State) -> Result<()> {
    let connection = Connection::open(&state.own_endpoint(environment)).await?;
    if !matches!(server::role(&connection).await?, server::RoleReply::Primary { .. }) {
        return Ok(());
    }
    let config = state.config();
    let prefixes: Vec<&str> = config.caches.keys().map(String::as_str).collect();
    for (prefix, id, job) in prefix_jobs::undone(&connection, &prefixes).await? {
        let Some(channel) = config.caches.get(&prefix) else { continue };
        carry_out(&connection, &prefix, channel, &id, job).await?;
    }
    Ok(())
}

async fn carry_out(connection: &Connection, prefix: &str, channel: &str, id: &str, mut job: PrefixJob) -> Result<()> {
    job.state = JobState::Running;
    if !prefix_jobs::note(connection, prefix, id, &job).await? {
        return Ok(());
    }
    tracing::info!(prefix, id, "removes the keys of a cache that begin alike");
    let (mut cursor, mut noted) = (0, Instant::now());
    loop {
        let page = prefix_jobs::remove_page(connection, prefix, &job, cursor).await?;
        job.removed = job.removed.saturating_add(page.removed);
        let Some(next) = page.next else { break };
        cursor = next;
        if noted.elapsed() >= NOTE_EVERY {
            if !prefix_jobs::note(connection, prefix, id, &job).await? {
                tracing::info!(prefix, id, removed = job.removed, "the job was withdrawn");
                return Ok(());
            }
            noted = Instant::now();
        }
        sleep((page.took * PAUSE).min(LONGEST_PAUSE)).await;
    }
    job.state = JobState::Done;
    // Told first: a job that is done and was not told of would leave what others copied meanwhile.
    prefix_jobs::announce_end(connection, channel, id, &job).await?;
    prefix_jobs::note(connection, prefix, id, &job).await?;
    tracing::info!(prefix, id, removed = job.removed, "the keys are gone");
    Ok(())
}
