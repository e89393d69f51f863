//! Jobs that remove the keys of a cache that begin alike, on the server: asked for, read, and carried out page by page.

use ::redis::{Cmd, FromRedisValue as _, Value, cmd};

use super::connection::Connection;
use super::error::Result;
use super::keys::{self, Meter};
use crate::model::prefix_job::{JOBS, JobState, KEPT_MS, MOST_JOBS, PrefixJob};

/// The key of a cache's jobs.
fn jobs_key(prefix: &str) -> String {
    format!("{prefix}{JOBS}")
}

/// Asks for the removal of all keys that begin so: the id of the job.
pub(crate) async fn ask(connection: &Connection, prefix: &str, beginning: &str) -> Result<String> {
    let mut command = cmd("FCALL");
    command.arg("redoubt_cache_invalidate_prefix").arg(1).arg(jobs_key(prefix)).arg(beginning);
    connection.query(&command).await
}

/// How far a job is; `None`: there is no such job any more.
pub(crate) async fn read(connection: &Connection, prefix: &str, id: &str) -> Result<Option<PrefixJob>> {
    let text: Option<Vec<u8>> = connection.query(cmd("HGET").arg(jobs_key(prefix)).arg(id)).await?;
    Ok(text.and_then(|text| PrefixJob::read(prefix, &text)))
}

/// The jobs of caches, given by prefix, that are not done, the oldest first: prefix, id and job. What is no hash of jobs is left out.
pub(crate) async fn undone(connection: &Connection, prefixes: &[&str]) -> Result<Vec<(String, String, PrefixJob)>> {
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

/// Writes how far a job is. `false`: it is not there any more, because it was withdrawn.
pub(crate) async fn note(connection: &Connection, prefix: &str, id: &str, job: &PrefixJob) -> Result<bool> {
    let key = jobs_key(prefix);
    let is_there: bool = connection.query(cmd("HEXISTS").arg(&key).arg(id)).await?;
    if is_there {
        connection.query::<()>(cmd("HSET").arg(&key).arg(id).arg(job.text())).await?;
        connection.query::<()>(cmd("PEXPIRE").arg(&key).arg(KEPT_MS)).await?;
    }
    Ok(is_there)
}

/// A page of the keys that a job removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where the next one begins; `None`: that was the last.
    pub next: Option<u64>,
    /// The keys, with their bytes.
    pub keys: Vec<(Vec<u8>, u64)>,
    /// How long the server was busy with it.
    pub meter: Meter,
}

/// Lists what a page of the keyspace has of a job: it looks at about `count` keys.
pub(crate) async fn list_page(
    connection: &Connection,
    prefix: &str,
    job: &PrefixJob,
    cursor: u64,
    count: u16,
) -> Result<Page> {
    let mut meter = Meter::default();
    let (next, mut names) = keys::scan_for(connection, &mut meter, cursor, count, &job.pattern()).await?;
    let jobs = jobs_key(prefix);
    names.retain(|key| key != jobs.as_bytes());
    let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let sizes = keys::sizes(connection, &mut meter, &asked).await?;
    // What is gone by now needs no removal.
    let keys = names.into_iter().zip(sizes).filter_map(|(name, bytes)| Some((name, bytes?))).collect();
    Ok(Page { next: (next != 0).then_some(next), keys, meter })
}

/// Tells those who keep copies that what they read while the job ran may be gone: a message of a run that they do not know.
pub(crate) async fn announce_end(connection: &Connection, channel: &str, id: &str, job: &PrefixJob) -> Result<()> {
    let message = [format!("{id} 1 p ").as_bytes(), &job.beginning].concat();
    connection.query(cmd("PUBLISH").arg(channel).arg(message)).await
}
