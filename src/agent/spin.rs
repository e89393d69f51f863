//! A Sentinel whose event loop never rests.
//!
//! While a Service has no endpoints kube-proxy refuses connections by an ICMP message. Linux since 6.0 keeps it in the error queue of
//! a TCP socket that is just connecting, and if the node is back for the next try the socket connects all the same: from then on
//! `epoll_wait` never rests, because no code takes the message, for as long as the connection lasts. Redis' own connections end with
//! it; those of hiredis, which Sentinels use, do not. (Seen with Redis 7.0 and 8.0 and Valkey 8.1, Linux 6.18: after all pods of a
//! layer were deleted two of three Sentinels used 80 % of a processor each, for as long as they were left alone.)
//!
//! Nothing tells which connection it is. So one after the other is ended by the server at its other end until the Sentinel rests;
//! it makes each again within a second, and takes no server for down for want of that second.
//!
//! A restart of the Sentinel would be shorter to write, and is the last resort only: it happens to a majority at once. After all pods
//! went, two of three Sentinels spin; the end of both leaves no majority until they are back, and no failover in that time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};
use procfs::{ProcError, ProcResult};
use tokio::time::Instant;

use super::config::Environment;
use super::peers::{self, View};
use super::state::State;
use crate::model::Address;
use crate::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::redis::{self, Connection, sentinel, server};

/// How long it must not have rested before anything is done about it.
const SPINS_FOR: Duration = Duration::from_secs(5);

/// Rests in a second of a process that may have nothing else to do. A Sentinel at rest wakes up a hundred times a second, and our
/// questions alone make it four.
const VOLUNTARY_SWITCHES_A_SECOND: u64 = 1;

/// How often all its connections are ended, without an effect, before the Sentinel is. Two that began together are not restarted together.
fn sweeps_before_restart(ordinal: u16) -> u32 {
    2 + u32::from(ordinal)
}

/// What is known of a Sentinel that answers.
#[derive(Debug, Default)]
pub(super) struct Spin {
    since: Option<(Instant, u64)>,
    search: Option<Search>,
    sweeps: u32,
}

/// The search for the connection that keeps it busy.
#[derive(Debug)]
struct Search {
    switches: u64,
    suspects: Vec<Outgoing>,
}

/// A connection that a process made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outgoing {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Spin {
    /// Notes that the Sentinel answered, and looks at its process. True: it has not rested for as long as `window`.
    fn is_spinning(&mut self, switches: u64, window: Duration) -> bool {
        let (began, before) = *self.since.get_or_insert((Instant::now(), switches));
        let spins = switches.saturating_sub(before) < VOLUNTARY_SWITCHES_A_SECOND * window.as_secs();
        if began.elapsed() < window {
            return false;
        }
        self.since = None;
        spins
    }

    /// It did not answer: what stands still does not rest either.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Looks at a Sentinel that answered, and ends one of its connections if it spins. True: that was in vain with all of them,
    /// and most of all Sentinels answer without it, so it is to be ended itself. Its primary must not be down for either.
    pub(super) async fn is_to_end(&mut self, environment: &Environment, state: &State, pid: Option<u32>) -> bool {
        let Some((pid, switches)) = pid.and_then(|pid| Some((pid, voluntary_switches(pid).ok()?))) else {
            self.forget();
            return false;
        };
        if let Some(search) = &mut self.search {
            if switches > search.switches {
                tracing::info!("the Sentinel rests again");
                self.forget();
            } else if let Some(suspect) = search.suspects.pop() {
                tracing::warn!(remote = %suspect.remote, "the Sentinel uses a processor without work, because of a connection that its peer left: the agent ends it");
                if let Err(error) = cut(state, suspect).await {
                    tracing::warn!(%error, remote = %suspect.remote, "cannot end the Sentinel's connection to its peer");
                }
            } else {
                (self.search, self.sweeps) = (None, self.sweeps.saturating_add(1));
            }
            return false;
        }
        if !self.is_spinning(switches, SPINS_FOR) {
            return false;
        }
        if !can_be_disturbed(environment, state).await {
            return false;
        }
        if self.sweeps >= sweeps_before_restart(state.config().node.ordinal) {
            return can_be_missed(state).await;
        }
        self.search = outgoing(pid).ok().map(|suspects| Search { switches, suspects });
        false
    }
}

/// Whether the own Sentinel takes no primary for down.
async fn can_be_disturbed(environment: &Environment, state: &State) -> bool {
    let own = async {
        let connection = Connection::open(&state.own_endpoint(environment)).await?;
        sentinel::master(&connection, &state.config().master_name).await
    };
    let is_at_rest = |own: &SentinelMaster| own.trouble().is_none();
    own.await.is_ok_and(|own| own.as_ref().is_none_or(is_at_rest))
}

/// Whether most of all Sentinels answer without the own one.
async fn can_be_missed(state: &State) -> bool {
    let views = peers::ask_sentinels(state, &state.config()).await;
    let answering = views.iter().filter(|view| **view != View::Silent).count();
    answering.saturating_sub(1) > views.len() / 2
}

/// Ends a connection at its other end.
async fn cut(state: &State, connection: Outgoing) -> redis::Result<u64> {
    let address = Address(connection.remote.ip().to_string());
    let is_to_a_sentinel = connection.remote.port() == SENTINEL_PORT;
    let endpoint = if is_to_a_sentinel { state.sentinel_endpoint(&address) } else { state.data_endpoint(&address) };
    server::cut_address(&Connection::open(&endpoint).await?, connection.local).await
}

/// How often the process gave up the processor by itself
/// ([proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html), `voluntary_ctxt_switches` of its first thread).
fn voluntary_switches(pid: u32) -> ProcResult<u64> {
    let status = process(pid)?.status()?;
    status.voluntary_ctxt_switches.ok_or_else(|| ProcError::Other("no voluntary_ctxt_switches".to_owned()))
}

/// The connections that a process holds to servers of layers.
fn outgoing(pid: u32) -> ProcResult<Vec<Outgoing>> {
    let process = process(pid)?;
    let inode_of = |target: FDTarget| if let FDTarget::Socket(inode) = target { Some(inode) } else { None };
    let held: BTreeSet<u64> = process.fd()?.flatten().filter_map(|held| inode_of(held.target)).collect();
    let all = process.tcp()?.into_iter().chain(process.tcp6().unwrap_or_default());
    let made = all.filter(|entry| {
        let is_a_servers = |address: SocketAddr| [REDIS_PORT, SENTINEL_PORT].contains(&address.port());
        entry.state == TcpState::Established && is_a_servers(entry.remote_address) && held.contains(&entry.inode)
    });
    Ok(made.map(|entry| Outgoing { local: entry.local_address, remote: entry.remote_address }).collect())
}

fn process(pid: u32) -> ProcResult<Process> {
    Process::new(i32::try_from(pid).map_err(|error| ProcError::Other(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(2);

    /// Looks at a shell that does `what` until it spins, for `within` at most.
    fn spins(what: &str, within: Duration) -> bool {
        let mut child = Command::new("sh").args(["-c", what]).stdin(Stdio::null()).spawn().unwrap();
        let mut spin = Spin::default();
        let began = Instant::now();
        let mut spins = false;
        while !spins && began.elapsed() < within {
            spins = spin.is_spinning(voluntary_switches(child.id()).unwrap(), WINDOW);
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        spins
    }

    #[test]
    fn a_process_that_waits_is_distinguished_from_one_that_does_not() {
        // Also one that never gives up the processor waits for the memory that the machine has to bring, now and then.
        assert!(spins("while :; do :; done", 15 * WINDOW));
        assert!(!spins("while :; do sleep 0.1; done", 2 * WINDOW));
    }

    #[test]
    fn connections_to_servers_are_found_and_no_others() {
        let listen = |address: &str| std::net::TcpListener::bind(address).unwrap();
        let (server, stranger) = (listen("127.0.77.1:6379"), listen("127.0.77.1:0"));
        let connect = |to: &std::net::TcpListener| std::net::TcpStream::connect(to.local_addr().unwrap()).unwrap();
        let (made, _other) = (connect(&server), connect(&stranger));
        // The server's end of the same connection is not one that the process made.
        let _accepted = server.accept().unwrap();
        let found = outgoing(std::process::id()).unwrap();
        let expected = Outgoing { local: made.local_addr().unwrap(), remote: server.local_addr().unwrap() };
        let here = |found: &&Outgoing| found.remote.ip() == expected.remote.ip();
        assert_eq!(found.iter().filter(here).collect::<Vec<_>>(), [&expected]);
        assert!(found.iter().all(|found| found.local != expected.remote));
    }
}
