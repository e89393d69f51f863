//! What an agent follows of its running engine: health, role, record, priority, hit ratio.

mod ending;
mod followed;
mod primacy;
mod recording;

use std::time::Duration;

use tokio::time::{Instant, Interval};

use self::followed::LINKS_END_WITHIN;
pub(crate) use self::followed::Watch;
use super::activity::activity_of;
use super::config::Environment;
use super::engine::StartupProgress;
use super::health::Health;
use super::state::State;
use super::{aside, handover, lineage_file, nomination, strangers, writers};
use crate::model::Role;
use crate::model::lineage::AsideReason;
use crate::redis::info::Info;
use crate::redis::{Class, Connection, Error, server};

/// Between two polls while clients take all connections that are free.
const POLL_WHEN_SHORT: Duration = Duration::from_millis(25);
/// Between two tries to connect to a server that took no connection.
const RECONNECT_EVERY: Duration = Duration::from_millis(5);
/// Between two tries to hand over: one that fails may have kept writers waiting for some seconds.
const HAND_OVER_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    /// Looks once: health, role, record. Whether the server said all that is recorded of it.
    pub(crate) async fn poll(&mut self, environment: &Environment, state: &State) -> bool {
        self.volume_tasks.remove(self.file_links.take_proven());
        self.volume_tasks.advance(environment, state);
        match self.ask(environment, state).await {
            Ok((info, connection)) => {
                let is_told = self.note_answer(environment, state, &info, &connection).await;
                if !self.is_to_end {
                    self.connection = Some(connection);
                }
                is_told
            }
            Err(error) => {
                self.note_failure(environment, state, &error).await;
                false
            }
        }
    }

    /// Follows a server that answered. Whether it said all that is recorded of it: one that is not of the layer is to be ended.
    async fn note_answer(
        &mut self,
        environment: &Environment,
        state: &State,
        info: &Info,
        connection: &Connection,
    ) -> bool {
        self.answered = true;
        self.busy_script.ends();
        self.unresponsive.ends(Some(info));
        self.lockout.ends();
        self.new_connections.note_answer();
        let stopping = state.health() == Health::Stopping;
        if !stopping {
            let health = Health::of_answer(info);
            let is_waiting = state.functions().is_waiting();
            state.set_health(if is_waiting { health.without_functions(info) } else { health });
        }
        self.hits.record(Instant::now(), info, state.own_reads());
        state.set_hit_ratio(self.hits.ratio());
        if info.is_loading() {
            // One that served takes in what its primary sent: what was recorded of it is of the data before.
            return !self.served;
        }
        self.served = true;
        self.counter_poll.begin_if_due(state.counters(), connection);
        self.function_poll.begin_if_due(environment, &state.config(), state.functions(), connection);
        self.replica_state.note(info, Instant::now());
        if let Some(stranger) = strangers::stranger_followed(state, info).await {
            tracing::error!(%stranger, "this server follows what is no node of the layer: it is ended");
            (self.is_astray, self.is_to_end) = (true, true);
            return false;
        }
        self.file_links.note_loaded(info);
        self.cluster.note(environment, state, connection, info).await;
        self.record(state, info).await;
        self.data_file.ask_for_snapshot(connection, info).await;
        if !stopping {
            self.data_file.switch_on(connection, info).await;
        }
        self.keep_ancestry(state, info).await;
        self.file_links.update(environment, state, info, state.lineage().as_ref()).await;
        if self.is_chosen_as_replica && self.file_links.is_idle() {
            self.is_chosen_as_replica = false;
            self.file_links.keep_chosen(environment, state);
        }
        if info.keys().0 > 0 {
            state.note_keys(environment);
        }
        if !stopping {
            self.keep_serving(environment, state, info, connection).await;
        }
        true
    }

    /// Sets a server right that serves and is not to stop: its role, its clients, its memory, its place among the others.
    async fn keep_serving(&mut self, environment: &Environment, state: &State, info: &Info, connection: &Connection) {
        self.step_down(state, connection, info).await;
        let was_primary = std::mem::take(&mut self.demoted);
        self.writers.disconnect_writers(connection, info, was_primary).await;
        if was_primary {
            writers::end_pause(connection).await;
        }
        self.scripts.flush_if_large(state, connection, info).await;
        self.error_stats.reset_if_many(connection, info).await;
        self.client_memory.reclaim(state, connection, info).await;
        self.own_room.keep(state, connection, info).await;
        self.starts_over = self.new_connections.check(environment, state).await.or(self.starts_over);
        self.replication.check_replica(environment, state, connection, info).await;
        self.check_rivals(state, info).await;
        let again = self.decide_again(state, info).await;
        self.keep_priority(connection, info, &again).await;
        if self.is_chosen && info.role() == Some(Role::Replica) {
            nomination::accept_choice(state, connection).await;
        }
        nomination::accept_nomination(state, connection, &again).await;
        self.leave_hung_disk(environment, state, info).await;
        self.announcement.keep(environment, state, connection, info).await;
        state.set_activity(activity_of(info, &self.replica_state));
    }

    /// Notes that the server gave no answer, or an error; decides whether it is to be ended.
    async fn note_failure(&mut self, environment: &Environment, state: &State, error: &Error) {
        if state.health() != Health::Stopping {
            state.set_health(Health::of_error(error.class(), &state.health()));
        }
        let is_silent = self.unresponsive.note_failure(&state.config(), error, self.data_file.is_append_only());
        if is_silent {
            state.notice("its server ran and answered nothing: it was ended and restarted".to_owned());
        }
        self.is_to_end =
            self.busy_script.must_end_server(error, self.connection.as_ref(), self.data_file.is_append_only()).await
                || is_silent;
        self.starts_over = self.new_connections.note_failure(state, error).or(self.starts_over);
        if self.lockout.note_failure(environment, state, error) {
            self.starts_over = Some("it refuses the agent, and its Secret has other users than it was started with");
        }
        if !error.class().is_alive() || matches!(error.class(), Class::Denied | Class::Full) {
            self.connection = None;
        }
    }

    /// Waits until a poll is due: with the next tick, and at once where another connection had to be made.
    pub(crate) async fn wait_for_turn(&mut self, ticks: &mut Interval, environment: &Environment, state: &State) {
        if self.own_room.is_short() {
            ticks.reset_after(POLL_WHEN_SHORT);
        }
        tokio::select! {
            _ = ticks.tick() => {}
            () = self.reconnected(environment, state) => {}
        }
    }

    /// Waits until the open connection has ended, and has another. A server that starts, or that a Sentinel promotes, has all its
    /// connections free at that moment, and clients may take them before the next poll.
    async fn reconnected(&mut self, environment: &Environment, state: &State) {
        match &self.connection {
            Some(open) => open.wait_until_ended().await,
            None if !self.answered || self.new_connections.is_full() => {}
            // It answered and is silent: the polls ask it at their pace.
            None => std::future::pending().await,
        }
        loop {
            match state.open_own(environment).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return;
                }
                // The next poll tells.
                Err(error) if error.class() == Class::Denied => std::future::pending().await,
                Err(_) => tokio::time::sleep(RECONNECT_EVERY).await,
            }
        }
    }

    /// Reads what the server's functions counted: it is about to be ended.
    pub(crate) async fn read_counters(&self, state: &State) {
        if let Some(connection) = &self.connection {
            state.counters().refresh_at_end(connection).await;
        }
    }

    /// Asks over the connection that is open, and over a new one where that turns out to be cut: a Sentinel cuts all connections of
    /// the servers that it promotes or demotes, and what they have become is what has to be known then.
    async fn ask(&self, environment: &Environment, state: &State) -> Result<(Info, Connection), Error> {
        if let Some(open) = &self.connection {
            match server::info(open).await {
                Err(error) if error.is_cut() => {}
                asked => return Ok((asked?, open.clone())),
            }
        }
        let connection = Connection::open(&state.own_endpoint(environment)).await?;
        Ok((server::info(&connection).await?, connection))
    }

    /// A primary whose volume hangs hands over while its server still answers: soon it would not, and what it confirms is in no file.
    async fn leave_hung_disk(&mut self, environment: &Environment, state: &State, info: &Info) {
        let Some(hangs) = self.disk.hangs().max(self.volume_tasks.hangs()).max(self.file_links.hangs()) else { return };
        state.set_health(Health::DiskHangs);
        let is_due = self.handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_EVERY);
        if info.role() != Some(Role::Primary) || !state.config().fails_over() || !is_due {
            return;
        }
        tracing::error!(?hangs, "the volume hangs: the primary hands over");
        self.handed_over = Some(Instant::now());
        if let Err(error) = handover::try_once(environment, state).await {
            tracing::warn!(error = %crate::telemetry::Chain(&error), "not handed over, to be tried again");
        }
    }

    /// After the end of a server that followed what is no node of the layer: the node has the files of before again.
    pub(crate) async fn take_back(&mut self, environment: &Environment, state: &State) {
        self.file_links.finish_work(state, LINKS_END_WITHIN).await;
        if !std::mem::take(&mut self.is_astray) {
            return;
        }
        let record = self.file_links.record(environment);
        let restored = match &record {
            Some(record) => aside::restore_links(environment, record),
            None => Ok(false),
        };
        match restored {
            Ok(true) => {
                tracing::warn!(keys = record.map(|record| record.keys), "the node has its own files back");
                state.note_taken_back();
            }
            // What is there came from the stranger, and the record speaks of what the node had before.
            Ok(false) => {
                tracing::error!("the node has no files of its own any more: what the stranger put there is moved away");
                if let Err(error) = aside::move_away(environment, AsideReason::Replaced, None) {
                    tracing::error!(error = %crate::telemetry::Chain(&error), "it stays, as data of unknown origin");
                    lineage_file::mark_unknown_origin(environment);
                }
                state.set_aside(aside::list(environment));
            }
            Err(error) => {
                lineage_file::mark_unknown_origin(environment);
                state.set_unusable(Some(&format!("Stray: the node's own files are in /data/aside/.standing: {error}")));
            }
        }
    }

    /// Has the snapshot of the functions removed: the server has read it.
    pub(crate) fn remove_functions(&mut self) {
        self.volume_tasks.remove_functions();
    }

    /// Whether the server is to be ended: it will do nothing any more.
    pub(crate) fn is_to_end(&self) -> bool {
        self.is_to_end
    }

    /// How far the engine came.
    pub(crate) fn reached(&self) -> StartupProgress {
        match (self.answered, self.served) {
            (_, true) => StartupProgress::Serving,
            (true, false) => StartupProgress::Loading,
            (false, false) => StartupProgress::Nothing,
        }
    }
}
