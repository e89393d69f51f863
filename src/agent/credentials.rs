//! The passwords of the system's users: read again while a node runs, and told where a server takes none of them.
//!
//! The passwords of a layer do not change, and servers that run know them as digests. A person may edit the Secret that has them, and
//! the operator puts it back. So what the files say counts only where a server refuses what is in use, and what is in use is given up only
//! for what that server takes.

use std::time::Duration;

use tokio::time::Instant;

use super::chain;
use super::config::{Environment, read_secret, read_users};
use super::state::State;
use crate::model::Address;
use crate::model::node_config::REDIS_PORT;
use crate::redis::info::Info;
use crate::redis::{Class, Connection, Endpoint, Error, Secret, server, users};

/// Between two polls of a password that a server may refuse: each is a login.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// How long a server must refuse the agent before it is restarted with the users of the Secret: the operator may put them right, which
/// costs no restart.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// File of the password with which replicas follow their primary.
pub(super) const REPLICATION_PASSWORD: &str = "replication-password";
/// File of the Sentinels' password.
pub(super) const SENTINEL_PASSWORD: &str = "sentinel-password";

/// A server that refuses the agent.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    since: Option<Instant>,
}

impl Lockout {
    /// The server answered the agent.
    pub(super) fn ends(&mut self) {
        self.since = None;
    }

    /// A poll that failed. True: the server is to be restarted, since it was started with users that the Secret no longer has, and
    /// neither the agent nor, for as long as it had, the operator could put them right.
    pub(super) fn note_failure(&mut self, environment: &Environment, state: &State, error: &Error) -> bool {
        if error.class() != Class::Denied {
            self.ends();
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() >= RESTART_AFTER
            && read_users(environment)
                .is_ok_and(|filed| state.with_agent_password(|own, given| own.fits(&filed) && !own.fits(given)))
    }
}

/// The password that a server gives to others, where they may refuse it.
#[derive(Debug, Default)]
pub(super) struct Given {
    polled: Option<Instant>,
    is_refused: bool,
}

impl Given {
    /// Whether every data node that answers refuses what its Sentinel was given.
    pub(super) const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Whether it is time to look again.
    fn is_due(&mut self) -> bool {
        let is_due = self.polled.is_none_or(|at| at.elapsed() >= POLL_EVERY);
        if is_due {
            self.polled = Some(Instant::now());
        }
        is_due
    }

    /// Looks at a replica without a link: where its primary refuses the password that it was given, it is given that of the Secret, if the
    /// primary takes that.
    pub(super) async fn check_replica(
        &mut self,
        environment: &Environment,
        state: &State,
        connection: &Connection,
        info: &Info,
    ) {
        let Some(link) = info.primary_link().filter(|link| !link.up && !link.syncing) else {
            self.polled = Some(Instant::now());
            return;
        };
        if !self.is_due() {
            return;
        }
        let Ok(live) = server::config_get(connection, &["masterauth"]).await else { return };
        let given = Secret::new(live.get("masterauth").cloned().unwrap_or_default());
        let fit = fit(environment, state, &link.primary, users::REPLICATION, REPLICATION_PASSWORD, given).await;
        let Some(Fit::Filed(filed)) = fit else { return };
        tracing::warn!(primary = %link.primary, "the replica is given the password that its Secret has now");
        if let Err(error) = server::config_set(connection, "masterauth", filed.reveal()).await {
            tracing::warn!(error = %chain(&error), "the replica keeps the password that its primary refuses");
        }
    }

    /// Looks at the password that the own Sentinel was given. True: data nodes refuse it, and take the one that the Secret has now.
    pub(super) async fn check_sentinel(
        &mut self,
        environment: &Environment,
        state: &State,
        given: &Secret,
        takes_primary_for_down: bool,
    ) -> bool {
        let is_other = read_secret(environment, SENTINEL_PASSWORD).is_ok_and(|filed| filed != *given);
        if !(is_other || takes_primary_for_down) {
            self.is_refused = false;
            return false;
        }
        if !self.is_due() {
            return false;
        }
        let mut fits = Vec::new();
        for address in state.config().data_nodes.values() {
            fits.extend(fit(environment, state, address, users::SENTINEL, SENTINEL_PASSWORD, given.clone()).await);
        }
        self.is_refused = !fits.is_empty() && !fits.iter().any(|fit| matches!(fit, Fit::Given));
        fits.iter().any(|fit| matches!(fit, Fit::Filed(_)))
    }
}

/// Which password a data node takes.
enum Fit {
    Given,
    /// That of the Secret, and not the given one.
    Filed(Secret),
    Neither,
}

/// Asks the data node at that address by logging in. `None`: it does not answer. Where it takes neither, that is told.
async fn fit(
    environment: &Environment,
    state: &State,
    address: &Address,
    user: &str,
    file: &str,
    given: Secret,
) -> Option<Fit> {
    let filed = read_secret(environment, file).ok().filter(|filed| *filed != given);
    let endpoint = Endpoint {
        address: address.0.clone(),
        port: REDIS_PORT,
        username: user.to_owned(),
        password: given,
        other_password: filed.clone(),
    };
    let opened = Connection::open(&endpoint).await;
    state.note_refusal(&endpoint, opened.as_ref().err());
    match (opened, filed) {
        (Ok(connection), Some(filed)) if connection.took_other_password() => Some(Fit::Filed(filed)),
        (Ok(_), _) => Some(Fit::Given),
        (Err(error), _) => (error.class() == Class::Denied).then_some(Fit::Neither),
    }
}
