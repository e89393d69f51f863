//! A server that runs and answers nothing: it is stopped, or in a command that takes minutes.
//!
//! Where it is the primary, the Sentinels elect another. The process stays: its clients wait, as a replica it counts for no
//! `min-replicas-to-write`, and nothing that it is told reaches it. So it is ended, and starts by what the boot rule says then. With an
//! append-only file that loses nothing that it confirmed: what a command wrote is in the file before its caller has the answer.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::node_config::NodeConfig;
use crate::redis::info::Info;
use crate::redis::{Class, Error};

/// Longer than any command takes that leaves the layer whole. The Sentinels come first: it is at least twice their time of detection.
const END_AFTER: Duration = Duration::from_secs(30);
/// The same where an end costs more than a restart: the data is in no append-only file, no other node serves meanwhile, or the server was
/// reading data from its primary, before which it frees what it had.
const END_AFTER_AT_LAST: Duration = Duration::from_mins(5);
/// So many polls at least: an agent that did not run itself for a while finds one that failed long ago.
const POLLS: u32 = 4;

/// Since when a server that answered is silent.
#[derive(Debug, Default)]
pub(super) struct UnresponsiveServer {
    since: Option<Instant>,
    polls: u32,
    answered: bool,
    /// Whether its last answer was that it takes in data.
    takes_in: bool,
}

impl UnresponsiveServer {
    /// The server answered; `info`: what, if it was an `INFO`.
    pub(super) fn ends(&mut self, info: Option<&Info>) {
        if let Some(since) = self.since.take().filter(|_| self.polls >= POLLS) {
            tracing::info!(after = ?since.elapsed(), "the server answers again");
        }
        (self.polls, self.answered) = (0, true);
        if let Some(info) = info {
            self.takes_in = info.is_loading() || info.primary_link().is_some_and(|link| link.syncing);
        }
    }

    /// A poll that failed. `is_saved`: the data is in an append-only file. True: the server is to be ended.
    pub(super) fn note_failure(&mut self, config: &NodeConfig, error: &Error, is_saved: bool) -> bool {
        if error.class() != Class::Unreachable {
            self.ends(None);
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.polls += 1;
        let limit = limit(config, is_saved && !self.takes_in);
        if self.polls == POLLS {
            tracing::error!(silent_for = ?since.elapsed(), ends_after = ?limit, "the server runs and answers nothing");
        }
        let is_due = self.answered && self.polls >= POLLS && since.elapsed() >= limit;
        if is_due {
            tracing::error!(silent_for = ?since.elapsed(), "a server that answers nothing is ended");
        }
        is_due
    }
}

fn limit(config: &NodeConfig, costs_a_restart_only: bool) -> Duration {
    if !costs_a_restart_only || !config.fails_over() {
        return END_AFTER_AT_LAST;
    }
    END_AFTER.max(2 * Duration::from_millis(config.detection_milliseconds))
}

#[cfg(test)]
mod tests {
    use super::super::late_election::tests::config;
    use super::*;
    use crate::model::Address;

    #[test]
    fn a_silent_server_is_ended_sooner_where_that_costs_a_restart_only() {
        let sentinels = std::collections::BTreeMap::from([(0, Address("10.0.1.1".to_owned()))]);
        let with = |detection_milliseconds| NodeConfig {
            detection_milliseconds,
            sentinels: sentinels.clone(),
            ..config(true)
        };
        assert_eq!(limit(&with(5_000), true), END_AFTER);
        assert_eq!(limit(&with(60_000), true), Duration::from_mins(2), "the Sentinels come first");
        assert_eq!(limit(&with(5_000), false), END_AFTER_AT_LAST);
        let alone = NodeConfig { sentinels: std::collections::BTreeMap::new(), ..config(true) };
        assert_eq!(limit(&alone, true), END_AFTER_AT_LAST, "no other node serves meanwhile");
    }

    /// An agent that did not run for minutes finds the poll failed that it began before.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_ended_after_several_polls_only() {
        let error = Error::Connect {
            address: "10.0.0.1:6379".to_owned(),
            source: ::redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)).into(),
        };
        let mut server = UnresponsiveServer::default();
        server.ends(None);
        let mut fails = || server.note_failure(&config(true), &error, true);
        assert!(!fails());
        tokio::time::advance(END_AFTER_AT_LAST).await;
        assert_eq!([(); 3].map(|()| fails()), [false, false, true]);
    }
}
