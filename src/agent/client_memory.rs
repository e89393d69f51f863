//! What connections hold that no limit of a server counts: the names of channels that they listen to, of keys that they watch, and
//! their own.
//!
//! Some seventy names of the largest size fill a small pod. A server says neither who holds them nor how much: it counts them as data, and
//! a list of its clients would have each name in it. So the connections of one user of applications after the other are ended until
//! the memory is given back, those that listen first. A client connects again by itself. Connections that did not log in come first of
//! all: half a command of theirs may hold 160 kB, and they are of no use to anything.

use std::time::Duration;

use procfs::process::Process;
use tokio::time::Instant;

use super::state::State;
use crate::model::node_config::NodeConfig;
use crate::redis::info::Info;
use crate::redis::{Connection, Result, server, users};

/// One poll may fall into a command that is about to free what it took.
const POLLS: u32 = 2;
/// What one command may pass `maxmemory` by besides its largest value, with some room for what is counted a moment later, bytes.
const ABOVE_ONE_VALUE: u64 = 8 << 20;
/// `proto-max-bulk-len` of a server that was given none, bytes.
const USUAL_VALUE: u64 = 512 << 20;
/// Less than this given back shows nothing, bytes.
const TELLING: u64 = 1 << 20;
/// What a Sentinel may take, bytes: its pod has 64 MiB, and its agent takes some of it. With 800 connections it takes less.
const MOST_OF_A_SENTINEL: u64 = 48 << 20;
/// Between two rounds at a Sentinel: its process gives memory back within seconds.
const SENTINEL_ROUND_EVERY: Duration = Duration::from_secs(5);

/// What is followed of it.
#[derive(Debug, Default)]
pub(super) struct ClientMemory {
    polls: u32,
    /// What was found to be data after all: a script may write more than one value, bytes.
    tolerated: u64,
    /// The user whose end gave most back: the next search begins with it.
    suspect: Option<String>,
    polled: Option<Instant>,
    /// Whether the last round at a Sentinel ended only connections without a login: what they held is given back by the next one.
    only_without_login: bool,
}

impl ClientMemory {
    /// Looks at a data node that answers.
    pub(super) async fn reclaim(&mut self, state: &State, connection: &Connection, info: &Info) {
        let room = room(&state.config());
        let excess = excess(info, room);
        self.tolerated = self.tolerated.min(excess);
        if excess <= self.tolerated.saturating_add(if self.tolerated == 0 { 0 } else { room }) {
            self.polls = 0;
            return;
        }
        self.polls += 1;
        if self.polls < POLLS {
            return;
        }
        self.polls = 0;
        tracing::warn!(
            bytes = excess,
            "connections hold memory that no limit counts: those without a login and their users' are ended until it is given back"
        );
        let left = async || Ok(self::excess(&server::info(connection).await?, room));
        match self.end_until(connection, excess, left).await {
            Ok(0) => {
                let whose = self.suspect.as_deref().unwrap_or("applications");
                state.notice(format!("connections of {whose} were ended: they held memory that no limit counts"));
            }
            Ok(left) => {
                tracing::warn!(bytes = left, "what passes maxmemory is data: it stays");
                self.tolerated = left;
            }
            Err(error) => tracing::warn!(%error, "memory that no limit counts may not be given back"),
        }
    }

    /// Looks at the process of a Sentinel that answers.
    pub(super) async fn reclaim_from_sentinel(&mut self, connection: &Connection, pid: Option<u32>) {
        let resident = || pid.and_then(resident).unwrap_or_default().saturating_sub(MOST_OF_A_SENTINEL);
        let excess = resident();
        self.only_without_login &= excess > 0;
        if excess == 0 || self.polled.is_some_and(|at| at.elapsed() < SENTINEL_ROUND_EVERY) {
            return;
        }
        self.polled = Some(Instant::now());
        tracing::warn!(
            bytes = excess,
            "the Sentinel takes more than its pod has room for: connections without a login and of applications are ended"
        );
        let ended = async {
            let ended = server::cut_user_by_type(connection, users::DEFAULT, false).await?;
            self.only_without_login = ended > 0 && !self.only_without_login;
            if !self.only_without_login {
                self.end_until(connection, excess, async || Ok(resident())).await?;
            }
            Ok::<_, crate::redis::Error>(())
        };
        if let Err(error) = ended.await {
            tracing::warn!(%error, "the Sentinel's memory may not be given back");
        }
    }

    /// Ends connections until `left` says that nothing is in excess: what is left then, bytes.
    async fn end_until(
        &mut self,
        connection: &Connection,
        excess: u64,
        left: impl AsyncFn() -> Result<u64>,
    ) -> Result<u64> {
        let mut names = server::acl_users(connection).await?;
        names.retain(|name| users::is_application_user(name) || name == users::DEFAULT);
        names.sort_by_key(|name| (name != users::DEFAULT, self.suspect.as_ref() != Some(name)));
        let mut before = excess;
        for only_listeners in [true, false] {
            for name in &names {
                let ended = server::cut_user_by_type(connection, name, only_listeners).await?;
                if ended == 0 {
                    continue;
                }
                let now = left().await?;
                let given_back = before.saturating_sub(now);
                tracing::warn!(user = %name, connections = ended, bytes = given_back, "ended");
                if given_back >= TELLING {
                    self.suspect = Some(name.clone());
                }
                if now == 0 {
                    return Ok(0);
                }
                before = now;
            }
        }
        Ok(before)
    }
}

/// How far a server may pass `maxmemory` by what is no fault, bytes.
fn room(config: &NodeConfig) -> u64 {
    let largest = config.settings.get("proto-max-bulk-len").and_then(|value| value.parse().ok());
    largest.unwrap_or(USUAL_VALUE).saturating_add(ABOVE_ONE_VALUE)
}

/// What is in neither data nor a term of the memory plan, bytes; 0 where `maxmemory` is not set. A server counts the buffers of
/// connections in what it compares, and not those of replicas and of the append-only file.
fn excess(info: &Info, room: u64) -> u64 {
    let number = |name| info.number(name).unwrap_or_default();
    let maxmemory = number("maxmemory");
    if maxmemory == 0 {
        return 0;
    }
    let compared = number("used_memory").saturating_sub(number("mem_not_counted_for_evict"));
    compared.saturating_sub(number("mem_clients_normal")).saturating_sub(maxmemory.saturating_add(room))
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> Option<u64> {
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    Some(stat.rss.saturating_mul(procfs::page_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_data_connections_and_one_value_is_in_excess() {
        const ROOM: u64 = 11;
        let of = |used: u64| {
            let text = format!(
                "# Memory\r\nused_memory:{used}\r\nmaxmemory:100\r\nmem_not_counted_for_evict:5\r\nmem_clients_normal:20\r\n"
            );
            excess(&Info::parse(&text), ROOM)
        };
        assert_eq!([of(50), of(100 + 5 + 20 + ROOM), of(140)], [0, 0, 4]);
        assert_eq!(excess(&Info::parse("# Memory\r\nused_memory:500\r\nmaxmemory:0\r\n"), ROOM), 0, "no limit");
    }

    #[test]
    fn a_process_has_a_size() {
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
