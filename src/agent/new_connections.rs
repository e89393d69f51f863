//! Whether a server that answers its agent takes new connections.
//!
//! The agent asks over a connection that stays open. A server without a file descriptor left answers there as ever, and takes no
//! client, replica or Sentinel any more: Redis 7.0 loses a descriptor with each full sync for which it cannot fork. Nor does a server
//! help that clients have filled while its agent was not connected: the agent makes room ([`super::own_room`]) over a connection only.
//! Both are ended in order and start by what the boot rule says then: all that they had is open again.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::Environment;
use super::state::State;
use crate::redis::{Class, Connection, Error};

/// Between two tries to connect.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// How long none may succeed. A crowd of clients that all connect at once is over sooner.
const END_AFTER: Duration = Duration::from_secs(20);
/// How long the agent may find no connection left: room comes by chance only, and until then nothing of the layer works there.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Why a server is ended that takes no new connection.
const TAKES_NONE: &str = "it takes no new connection";
/// Why a server is ended that clients have filled.
const IS_FULL: &str = "its clients left no connection for its agent";

/// What is followed of it.
#[derive(Debug, Default)]
pub(super) struct NewConnections {
    tried: Option<Instant>,
    /// Under way.
    attempt: Option<JoinHandle<Result<(), Class>>>,
    failing: Option<Instant>,
    full: Option<Instant>,
}

impl NewConnections {
    /// The server answered its agent.
    pub(super) const fn note_answer(&mut self) {
        self.full = None;
    }

    /// Looks at a server that serves. Some: it is to be ended, and why.
    pub(super) async fn check(&mut self, environment: &Environment, state: &State) -> Option<&'static str> {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.is_finished()) {
            self.note(matches!(attempt.await, Ok(Err(Class::Unreachable))));
        }
        if self.attempt.is_none() && self.tried.is_none_or(|at| at.elapsed() >= TRY_EVERY) {
            self.tried = Some(Instant::now());
            let endpoint = state.own_endpoint(environment);
            self.attempt = Some(tokio::spawn(async move {
                Connection::open(&endpoint).await.map(drop).map_err(|error| error.class())
            }));
        }
        let waited = self.failing.map(|since| since.elapsed()).filter(|waited| *waited >= END_AFTER)?;
        tracing::error!(?waited, "the server answers its agent and takes no new connection");
        state.notice(format!("its server was restarted: {TAKES_NONE}"));
        Some(TAKES_NONE)
    }

    /// Whether the agent found no connection left at the last poll.
    pub(super) const fn is_full(&self) -> bool {
        self.full.is_some()
    }

    fn note(&mut self, is_failed: bool) {
        match (is_failed, self.failing) {
            (true, None) => {
                tracing::warn!("the server answers its agent, and took no new connection within a second");
                self.failing = self.tried;
            }
            (true, Some(_)) => {}
            (false, _) => self.failing = None,
        }
    }

    /// A poll failed. Some: the server is to be ended, and why.
    pub(super) fn note_failure(&mut self, state: &State, error: &Error) -> Option<&'static str> {
        if error.class() != Class::Full {
            self.full = None;
            return None;
        }
        let waited = self.full.get_or_insert_with(Instant::now).elapsed();
        if waited < FULL_FOR {
            return None;
        }
        tracing::error!(?waited, "clients have all connections of the server, and its agent has none");
        state.notice(format!("its server was restarted: {IS_FULL}"));
        Some(IS_FULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_that_fail_count_from_the_first_until_one_succeeds() {
        let mut watched = NewConnections::default();
        let mut after = async |seconds, is_failed| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            watched.tried = Some(Instant::now());
            watched.note(is_failed);
            watched.failing.map(|since| since.elapsed())
        };
        assert_eq!(after(0, true).await, Some(Duration::ZERO));
        assert_eq!(after(19, true).await, Some(Duration::from_secs(19)));
        assert_eq!(after(1, false).await, None);
        assert_eq!(after(5, true).await, Some(Duration::ZERO));
    }
}
