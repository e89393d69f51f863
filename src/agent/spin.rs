//! A Sentinel that is busy with nothing.
//!
//! While a Service has no endpoints kube-proxy refuses connections by an ICMP message. Linux since 6.0 keeps it in the error queue of
//! a TCP socket that is just connecting, and if the node is back for the next try the socket connects all the same: from then on
//! `epoll_wait` never rests, because nobody takes the message, for as long as the connection lasts. Redis' own connections end with
//! it; those of hiredis, which Sentinels use, do not. (Seen with Redis 7.0 and 8.0 and Valkey 8.1, Linux 6.18: after all pods of a
//! layer were deleted two of three Sentinels used 80 % of a processor each, for as long as they were left alone.) The message can be
//! taken by nobody else, and the connection ends with the Sentinel.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Environment;
use super::peers::{self, View};
use super::state::State;
use crate::model::observed::SentinelMaster;
use crate::redis::{Connection, sentinel};

/// How long it must not have rested: longer than a new layer takes to form, which its nodes do one after the other. Two
/// Sentinels that began to spin together are not started anew together.
fn patience(ordinal: u16) -> Duration {
    Duration::from_secs(15 + 5 * u64::from(ordinal))
}

/// Rests in a second of a process that may have nothing else to do. A Sentinel at rest wakes up a hundred times a second, and our
/// questions alone make it four.
const RESTS_A_SECOND: u64 = 1;

/// What a Sentinel says of a primary that may need it any moment.
const BUSY_FLAGS: [&str; 3] = ["s_down", "o_down", "failover_in_progress"];

/// How often a Sentinel that answers has rested, since when.
#[derive(Debug, Default)]
pub struct Spin {
    since: Option<(Instant, u64)>,
}

impl Spin {
    /// Notes that the Sentinel answered, and looks at its process. True: it has not rested for as long as `patience`.
    pub fn look(&mut self, pid: Option<u32>, patience: Duration) -> bool {
        let Some(rests) = pid.and_then(rests) else {
            self.since = None;
            return false;
        };
        let (began, before) = *self.since.get_or_insert((Instant::now(), rests));
        let spins = rests.saturating_sub(before) < RESTS_A_SECOND * patience.as_secs();
        if began.elapsed() < patience {
            return false;
        }
        self.since = None;
        spins
    }

    /// It did not answer: what stands still does not rest either.
    pub fn forget(&mut self) {
        self.since = None;
    }

    /// [`Spin::look`], and whether the Sentinel can be missed for a moment: its primary is not down, and most of all answer
    /// without it.
    pub async fn is_to_end(&mut self, environment: &Environment, state: &State, pid: Option<u32>) -> bool {
        let config = state.config();
        if !self.look(pid, patience(config.node.ordinal)) {
            return false;
        }
        let own = async {
            let connection = Connection::open(&state.own_endpoint(environment)).await?;
            sentinel::master(&connection, &config.master_name).await
        };
        let (own, views) = tokio::join!(own, peers::ask_sentinels(state, &config));
        let is_at_rest = |own: &SentinelMaster| BUSY_FLAGS.iter().all(|flag| !own.flags.contains(*flag));
        let answering = views.iter().filter(|view| **view != View::Silent).count();
        own.is_ok_and(|own| own.as_ref().is_none_or(is_at_rest)) && answering.saturating_sub(1) > views.len() / 2
    }
}

/// How often the process gave up the processor by itself
/// ([proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html), `voluntary_ctxt_switches` of its first thread).
fn rests(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Looks at a shell that does `what` until the verdict is due.
    fn verdict(what: &str) -> bool {
        let mut child = Command::new("sh").args(["-c", what]).stdin(Stdio::null()).spawn().unwrap();
        let (mut spin, patience) = (Spin::default(), Duration::from_secs(2));
        let began = Instant::now();
        let mut spins = false;
        while !spins && began.elapsed() < 2 * patience {
            spins = spin.look(Some(child.id()), patience);
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        spins
    }

    #[test]
    fn a_process_that_rests_is_told_from_one_that_does_not() {
        assert!(verdict("while :; do :; done"));
        assert!(!verdict("while :; do sleep 0.1; done"));
    }
}
