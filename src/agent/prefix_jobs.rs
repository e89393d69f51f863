//! Removes the keys of caches that begin alike, where it was asked for: on the primary, page by page, for a small part of the
//! server's time.
//!
//! Where it stands in the keyspace is kept here only: a primary that takes over, and an agent that starts again, go through all keys
//! once more, which removes nothing twice.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::config::Environment;
use super::state::State;
use super::{chain, removal};
use crate::model::Role;
use crate::model::audit::{PageSize, pause_after};
use crate::model::prefix_job::{JobState, PrefixJob};
use crate::redis::keys::Removal;
use crate::redis::{Connection, Result, prefix_jobs, server};

/// Between two looks for jobs.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// Share of a server's time that jobs take while one is under way, percent.
const SHARE: u32 = 5;
/// The longest pause: a page that took so long was held up by others.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Between two notes of how far a job is.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Looks for jobs, and carries them out; without end.
pub(super) async fn run(environment: &Environment, state: &State) {
    loop {
        sleep(POLL_EVERY).await;
        let is_primary = state.lineage().is_some_and(|lineage| lineage.role == Role::Primary);
        if state.config().caches.is_empty() || !state.is_loaded() || !is_primary {
            continue;
        }
        if let Err(error) = carry_out_undone(environment, state).await {
            tracing::debug!(error = %chain(&error), "the caches' jobs are looked at again");
        }
    }
}

async fn carry_out_undone(environment: &Environment, state: &State) -> Result<()> {
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
    let (mut cursor, mut size) = (0, PageSize::default());
    let (mut noted, mut is_told) = (Instant::now(), false);
    loop {
        let page = prefix_jobs::list_page(connection, prefix, &job, cursor, size.keys()).await?;
        let sized: Vec<(&[u8], u64)> = page.keys.iter().map(|(key, bytes)| (key.as_slice(), *bytes)).collect();
        job.removed =
            job.removed.saturating_add(removal::remove(connection, &sized, SHARE, Removal::Invalidation).await?);
        let Some(next) = page.next else { break };
        cursor = next;
        size = size.after(page.meter.longest);
        // The first keys that are gone are noted at once.
        if noted.elapsed() >= NOTE_EVERY || (job.removed > 0 && !is_told) {
            if !prefix_jobs::note(connection, prefix, id, &job).await? {
                tracing::info!(prefix, id, removed = job.removed, "the job was withdrawn");
                return Ok(());
            }
            (noted, is_told) = (Instant::now(), job.removed > 0);
        }
        sleep(pause_after(page.meter.busy, SHARE).min(LONGEST_PAUSE)).await;
    }
    job.state = JobState::Done;
    // Told first: a job that is done and was not told of would leave what others copied meanwhile.
    prefix_jobs::announce_end(connection, channel, id, &job).await?;
    prefix_jobs::note(connection, prefix, id, &job).await?;
    tracing::info!(prefix, id, removed = job.removed, "the keys are gone");
    Ok(())
}
