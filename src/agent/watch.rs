//! What an agent follows of its running engine: health, role, record, priority, hit ratio.

mod primacy;
mod recording;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::activity_of;
use super::announcement::Announcement;
use super::append_files::{Growth, Sizes};
use super::boot::{EngineStart, LayerPoll};
use super::busy_script::BusyScript;
use super::client_memory::ClientMemory;
use super::config::Environment;
use super::counters::CounterPoll;
use super::data_file::DataFile;
use super::disk::Disk;
use super::engine::StartupProgress;
use super::error_stats::ErrorStats;
use super::file_links::FileLinks;
use super::file_offset::FileOffset;
use super::functions::file::FunctionPoll;
use super::health::Health;
use super::hit_ratio::HitHistory;
use super::replica_state::ReplicaState;
use super::rivals::Rivals;
use super::script_cache::ScriptCache;
use super::state::State;
use super::unresponsive::UnresponsiveServer;
use super::volume_tasks::VolumeTasks;
use super::writers::Writers;
use super::wrong_primary::WrongPrimary;
use super::{aside, handover, lineage_file, nomination, strangers, writers};
use crate::model::lineage::{AsideReason, Lineage, next_term};
use crate::model::{Address, ReplicationId, Role};
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// Between two tries to hand over: one that fails may have kept writers waiting for some seconds.
const HAND_OVER_EVERY: Duration = Duration::from_secs(10);
/// How long an answer of the Sentinels holds for a replica at rest.
const SENTINEL_ANSWER_HOLDS: Duration = Duration::from_secs(1);

/// What is followed of a running engine.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(crate) struct Watch {
    connection: Option<Connection>,
    answered: bool,
    served: bool,
    term: u64,
    /// The line of data whose term `term` is, where that was copied from its primary.
    term_of: Option<ReplicationId>,
    epoch: u64,
    /// The person's decision that was carried out or overtaken ([`Lineage::accepted`]).
    accepted: Option<u16>,
    /// When the chosen node was asked last.
    asked_chosen: Option<Instant>,
    /// A person chose this node's data, and the Sentinels may not know yet.
    is_chosen: bool,
    /// A person chose this node's data, and it was promoted as it ran: the rule did not start it, so no copy was kept then.
    is_chosen_as_replica: bool,
    /// Why the engine has to end, to be started by what the rule says then.
    starts_over: Option<&'static str>,
    rivals: Rivals,
    wrong_primary: WrongPrimary,
    last_role: Option<Role>,
    /// The replication id that it had at the last poll, if it was primary then.
    primary_as: Option<ReplicationId>,
    /// Whether it was primary, or had a link to its primary, since its start: before, its data is what the record says.
    linked: bool,
    replica_state: ReplicaState,
    /// Since when it is a replica without a link.
    alone_since: Option<Instant>,
    /// While the rule is asked again ([`Watch::decide_again`]).
    poll: Option<LayerPoll>,
    announcement: Announcement,
    demoted: bool,
    writers: Writers,
    client_memory: ClientMemory,
    scripts: ScriptCache,
    error_stats: ErrorStats,
    file_links: FileLinks,
    /// Whether it follows what is no node of the layer.
    is_astray: bool,
    /// The record of the data that the server began with. `None`: there was none, or its files had lost some of it.
    began_with: Option<Lineage>,
    /// How long the append-only files were some seconds ago.
    growth: Arc<Mutex<Growth>>,
    busy_script: BusyScript,
    unresponsive: UnresponsiveServer,
    disk: Disk,
    volume_tasks: VolumeTasks,
    handed_over: Option<Instant>,
    /// Whether a script that cannot be killed keeps the server from all else, or it answers nothing.
    is_to_end: bool,
    majority: Option<(Address, u64)>,
    /// When the Sentinels told that.
    told: Option<Instant>,
    /// While a primary: the highest epoch that was known when it became one.
    baseline: Option<u64>,
    written: Option<(Instant, Lineage)>,
    /// Which file has the data.
    data_file: DataFile,
    file_offset: FileOffset,
    was_in_sync: bool,
    hits: HitHistory,
    counter_poll: CounterPoll,
    function_poll: FunctionPoll,
}

impl Watch {
    /// Of an engine that is being started.
    pub(crate) fn new(environment: &Environment, state: &State, start: &EngineStart, append_only: bool) -> Self {
        let uid = state.config().layer.uid.clone();
        let own = state.lineage();
        let term = own.as_ref().map_or(0, |own| own.term);
        let (recorded, present) = (lineage_file::sizes(environment), Sizes::measure(environment));
        let (term, last_role) = match start.primary {
            None => (next_term(term.max(start.highest_term)), Some(Role::Primary)),
            Some(_) => (term, Some(Role::Replica)),
        };
        Self {
            connection: None,
            answered: false,
            served: false,
            term,
            term_of: None,
            // Another layer's epochs are of other Sentinels.
            epoch: own
                .as_ref()
                .filter(|own| own.layer_uid == uid)
                .map_or(0, |own| own.epoch)
                .max(start.chosen_under.unwrap_or(0)),
            accepted: own.as_ref().and_then(|own| own.accepted),
            asked_chosen: None,
            is_chosen: start.chosen_under.is_some(),
            is_chosen_as_replica: false,
            starts_over: None,
            rivals: Rivals::default(),
            wrong_primary: WrongPrimary::default(),
            last_role,
            primary_as: None,
            linked: false,
            replica_state: ReplicaState::default(),
            alone_since: None,
            poll: None,
            announcement: Announcement::default(),
            // Clients of the predecessor that come back while this one loads must not stay.
            demoted: start.primary.is_some() && start.was_primary,
            writers: Writers::default(),
            client_memory: ClientMemory::default(),
            scripts: ScriptCache::default(),
            error_stats: ErrorStats::default(),
            file_links: FileLinks::open(environment, own.as_ref()),
            is_astray: false,
            began_with: own.clone().filter(|_| lineage_file::truncated(environment).is_none()),
            growth: Arc::new(Mutex::new(Growth::new(&recorded, &present))),
            busy_script: BusyScript::default(),
            unresponsive: UnresponsiveServer::default(),
            disk: Disk::default(),
            volume_tasks: VolumeTasks::default(),
            handed_over: None,
            is_to_end: false,
            majority: None,
            told: None,
            baseline: None,
            written: None,
            data_file: DataFile::new(append_only),
            file_offset: FileOffset::default(),
            was_in_sync: false,
            hits: HitHistory::default(),
            counter_poll: CounterPoll::default(),
            function_poll: FunctionPoll::default(),
        }
    }

    /// Looks once: health, role, record. Whether the server said all that is recorded of it.
    pub(crate) async fn poll(&mut self, environment: &Environment, state: &State) -> bool {
        self.volume_tasks.remove(self.file_links.take_proven());
        self.volume_tasks.advance(environment, state);
        let asked = self.ask(environment, state).await;
        let is_told = asked.is_ok();
        match asked {
            Ok((info, connection)) => {
                self.answered = true;
                self.busy_script.ends();
                self.unresponsive.ends(Some(&info));
                let stopping = state.health() == Health::Stopping;
                if !stopping {
                    let health = Health::of_answer(&info);
                    let is_waiting = state.functions().is_waiting();
                    state.set_health(if is_waiting { health.without_functions(&info) } else { health });
                }
                self.hits.record(Instant::now(), &info, state.own_reads());
                state.set_hit_ratio(self.hits.ratio());
                if !info.is_loading() {
                    self.served = true;
                    self.counter_poll.begin_if_due(state.counters(), &connection);
                    self.function_poll.begin_if_due(environment, &state.config(), state.functions(), &connection);
                    self.replica_state.note(&info, Instant::now());
                    if let Some(stranger) = strangers::stranger_followed(state, &info).await {
                        tracing::error!(%stranger, "this server follows what is no node of the layer: it is ended");
                        (self.is_astray, self.is_to_end) = (true, true);
                        return false;
                    }
                    self.file_links.note_loaded(&info);
                    self.record(state, &info).await;
                    self.data_file.ask_for_snapshot(&connection, &info).await;
                    self.keep_ancestry(state, &info).await;
                    self.file_links.update(environment, state, &info, state.lineage().as_ref()).await;
                    if self.is_chosen_as_replica && self.file_links.is_idle() {
                        self.is_chosen_as_replica = false;
                        self.file_links.keep_chosen(environment, state);
                    }
                    if info.keys().0 > 0 {
                        state.note_keys(environment);
                    }
                    if !stopping {
                        self.step_down(state, &connection, &info).await;
                        let was_primary = std::mem::take(&mut self.demoted);
                        self.writers.disconnect_writers(&connection, &info, was_primary).await;
                        if was_primary {
                            writers::end_pause(&connection).await;
                        }
                        self.scripts.flush_if_large(state, &connection, &info).await;
                        self.error_stats.reset_if_many(&connection, &info).await;
                        self.client_memory.reclaim(state, &connection, &info).await;
                        self.check_rivals(state, &info).await;
                        let again = self.decide_again(state, &info).await;
                        self.keep_priority(&connection, &info, &again).await;
                        nomination::accept_nomination(&connection, &again).await;
                        self.leave_hung_disk(environment, state, &info).await;
                        self.announcement.keep(environment, state, &connection, &info).await;
                        state.set_activity(activity_of(&info, &self.replica_state));
                    }
                }
                self.connection = Some(connection);
            }
            Err(error) => {
                if state.health() != Health::Stopping {
                    state.set_health(Health::of_error(error.class(), &state.health()));
                }
                let is_silent =
                    self.unresponsive.note_failure(&state.config(), &error, self.data_file.is_append_only());
                if is_silent {
                    state.notice("its server ran and answered nothing: it was ended and restarted".to_owned());
                }
                self.is_to_end = self
                    .busy_script
                    .must_end_server(&error, self.connection.as_ref(), self.data_file.is_append_only())
                    .await
                    || is_silent;
                if !error.class().is_alive() {
                    self.connection = None;
                }
            }
        }
        is_told
    }

    /// Reads what the server's functions counted: it is about to be ended.
    pub(crate) async fn read_counters(&self, state: &State) {
        if let Some(connection) = &self.connection {
            state.counters().refresh_at_end(connection).await;
        }
    }

    /// Asks over the connection that is open, and over a new one where that turns out to be cut: a Sentinel cuts all connections of
    /// the servers that it promotes or demotes, and what they have become is what has to be known then.
    async fn ask(&self, environment: &Environment, state: &State) -> Result<(Info, Connection), crate::redis::Error> {
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
        let Some(hangs) = self.disk.hangs().max(self.volume_tasks.hangs()) else { return };
        state.set_health(Health::DiskHangs);
        let is_due = self.handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_EVERY);
        if info.role() != Some(Role::Primary) || !state.config().has_sentinels() || !is_due {
            return;
        }
        tracing::error!(?hangs, "the volume hangs: the primary hands over");
        self.handed_over = Some(Instant::now());
        if let Err(error) = handover::try_once(environment, state).await {
            tracing::warn!(error = %crate::telemetry::Chain(&error), "not handed over, to be tried again");
        }
    }

    /// After the end of a server that followed what is no node of the layer: the node has the files of before again.
    pub(crate) fn take_back(&mut self, environment: &Environment, state: &State) {
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
