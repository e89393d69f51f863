//! Jobs that remove the keys of a cache that begin alike, on the server: asked for, read, and carried out page by page.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue as _, Value, cmd};

use super::connection::Connection;
use super::error::Result;
use crate::model::prefix_job::{JOBS, JobState, KEPT_MS, MOST_JOBS, PrefixJob};

/// Keys that one page looks at, and that one command removes: some 0.1 ms of the server.
const PAGE: usize = 256;

/// The key of a cache's jobs.
fn jobs_key(prefix: &str) -> String {
    format!("{prefix}{JOBS}")
}

/// Asks for the removal of all keys that begin so: the id of the job.
pub async fn ask(connection: &Connection, prefix: &str, beginning: &str) -> Result<String> {
    let mut command = cmd("FCALL");
    command.arg("redoubt_cache_invalidate_prefix").arg(1).arg(jobs_key(prefix)).arg(beginning);
    connection.query(&command).await
}

/// How far a job is; `None`: there is no such job any more.
pub async fn read(connection: &Connection, prefix: &str, id: &str) -> Result<Option<PrefixJob>> {
    let text: Option<Vec<u8>> = connection.query(cmd("HGET").arg(jobs_key(prefix)).arg(id)).await?;
    Ok(text.and_then(|text| PrefixJob::read(prefix, &text)))
}

/// The jobs of caches, given by prefix, that are not done, the oldest first: prefix, id and job. What is no hash of jobs is left out.
pub async fn undone(connection: &Connection, prefixes: &[&str]) -> Result<Vec<(String, String, PrefixJob)>> {
    let ask = |command: &str, prefix: &str| -> Cmd { cmd(command).arg(jobs_key(prefix)).clone() };
    let counts = connection.query_all(&prefixes.iter().map(|prefix| ask("HLEN", prefix)).collect::<Vec<_>>()).await?;
    let count =
        |reply: Result<Value>| reply.ok().and_then(|value| usize::from_redis_value(value).ok()).unwrap_or_default();
    let counted = prefixes.iter().zip(counts.into_iter().map(count));
    let with_jobs: Vec<&str> =
        counted.filter(|(_, count)| (1..=MOST_JOBS).contains(count)).map(|(prefix, _)| *prefix).collect();
    if with_jobs.is_empty() {
        return Ok(Vec::new());
    }
    let hashes =
        connection.query_all(&with_jobs.iter().map(|prefix| ask("HGETALL", prefix)).collect::<Vec<_>>()).await?;
    let mut jobs = Vec::new();
    for (prefix, hash) in with_jobs.into_iter().zip(hashes) {
        let fields = hash.ok().and_then(|value| Vec::<(String, Vec<u8>)>::from_redis_value(value).ok());
        for (id, text) in fields.unwrap_or_default() {
            let job = PrefixJob::read(prefix, &text).filter(|job| job.state != JobState::Done);
            jobs.extend(job.map(|job| (prefix.to_owned(), id, job)));
        }
    }
    // An id is microseconds.
    jobs.sort_by_key(|(_, id, _)| (id.len(), id.clone()));
    Ok(jobs)
}

/// Writes how far a job is. `false`: it is not there any more, because somebody withdrew it.
pub async fn note(connection: &Connection, prefix: &str, id: &str, job: &PrefixJob) -> Result<bool> {
    let key = jobs_key(prefix);
    let is_there: bool = connection.query(cmd("HEXISTS").arg(&key).arg(id)).await?;
    if is_there {
        connection.query::<()>(cmd("HSET").arg(&key).arg(id).arg(job.text())).await?;
        connection.query::<()>(cmd("PEXPIRE").arg(&key).arg(KEPT_MS)).await?;
    }
    Ok(is_there)
}

/// A page of a scan that removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the next one begins; `None`: that was the last.
    pub next: Option<u64>,
    /// Keys that were removed.
    pub removed: u64,
    /// How long it took.
    pub took: Duration,
}

/// Removes what a page of the keyspace has of a job.
pub async fn remove_page(connection: &Connection, prefix: &str, job: &PrefixJob, cursor: u64) -> Result<Page> {
    let began = std::time::Instant::now();
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(job.pattern()).arg("COUNT").arg(PAGE);
    let (next, mut keys): (u64, Vec<Vec<u8>>) = connection.query(&scan).await?;
    let jobs = jobs_key(prefix);
    keys.retain(|key| key != jobs.as_bytes());
    let mut removed = 0;
    for keys in keys.chunks(PAGE) {
        removed += connection.query::<u64>(cmd("UNLINK").arg(keys)).await?;
    }
    Ok(Page { next: (next != 0).then_some(next), removed, took: began.elapsed() })
}

/// Tells those who keep copies that what they read while the job ran may be gone: a message of a run that they do not know.
pub async fn announce_end(connection: &Connection, channel: &str, id: &str, job: &PrefixJob) -> Result<()> {
    let message = [format!("{id} 1 p ").as_bytes(), &job.beginning].concat();
    connection.query(cmd("PUBLISH").arg(channel).arg(message)).await
}
