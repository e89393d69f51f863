//! The life of a data node: decide, start, watch, and begin anew when the engine dies under us.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::boot::{Start, wait_for_decision};
use super::config::{Environment, read_node_config, read_secret, read_users};
use super::engine::{self, Error as EngineError};
use super::health::Health;
use super::state::State;
use super::{Error, Result, StopSignal, handover, lineage_file, peers, redis_conf};
use crate::model::lineage::{Activity, LINEAGE_FORMAT, Lineage};
use crate::model::{Address, Role};
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// Between two looks at the own server: one `INFO` of some 0.1 ms. A change of role is on disk this much later.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The record is written at least this often, so that its offset is at most so old (as old as `appendfsync everysec`).
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// An engine that ends this often before it ever answers has a configuration or image that will not get better.
const HOPELESS_STARTS: u32 = 3;

/// How an engine's life ended.
enum End {
    Stopped,
    Died { answered: bool, status: String },
}

/// Runs a data node until it is told to stop.
pub async fn run(environment: &Environment, state: &State, stop: &mut StopSignal) -> Result<()> {
    let program = engine::find()?;
    let mut hopeless = 0;
    loop {
        state.set_config(read_node_config(environment)?);
        let keeps_data = state.config().keeps_data;
        state.set_lineage(if keeps_data { lineage_file::read(environment)? } else { None });
        state.set_activity(Activity::Deciding);
        state.set_health(Health::Deciding);
        let start = tokio::select! {
            start = wait_for_decision(state) => start,
            () = stop.received() => return Ok(()),
        };
        let child = start_engine(environment, state, &program, &start)?;
        match live(environment, state, child, &start, stop).await? {
            End::Stopped => return Ok(()),
            End::Died { answered: true, status } => {
                hopeless = 0;
                tracing::warn!(status, "the engine died");
            }
            End::Died { answered: false, status } => {
                hopeless += 1;
                tracing::warn!(status, "the engine ended before it answered");
                if hopeless == HOPELESS_STARTS {
                    let program = program.display().to_string();
                    return Err(EngineError::EndsAtOnce { program, times: hopeless, status }.into());
                }
            }
        }
    }
}

fn start_engine(environment: &Environment, state: &State, program: &Path, start: &Start) -> Result<Child> {
    let config = state.config();
    let own = config.own_address().cloned().unwrap_or(Address(String::new()));
    let replication = read_secret(environment, "replication-password")?;
    let text = redis_conf::render(environment, &config, &own, &replication, start.primary.as_ref(), start.electable);
    let path = environment.run.join("redis.conf");
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|source| Error::File {
            doing: "writing",
            path: path.display().to_string(),
            source,
        })
    };
    write(&environment.run.join("users.acl"), &read_users(environment)?)?;
    write(&path, &text)?;
    // From here on the record on disk must not claim a clean stop.
    if let Some(mut lineage) = state.lineage() {
        lineage.clean_stop = false;
        lineage_file::write(environment, &lineage)?;
        state.set_lineage(Some(lineage));
    }
    state.set_activity(Activity::Loading);
    state.set_health(Health::Starting);
    Ok(engine::start(program, &path, false)?)
}

/// Watches a running engine until it ends or is told to.
async fn live(
    environment: &Environment,
    state: &State,
    mut engine: Child,
    start: &Start,
    stop: &mut StopSignal,
) -> Result<End> {
    let mut watch = Watch::new(state, start);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            status = engine.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Ok(End::Died { answered: watch.answered, status });
            }
            () = stop.received() => {
                state.set_activity(Activity::Stopping);
                state.set_health(Health::Stopping);
                handover::hand_over(environment, state).await;
                watch.look(environment, state).await;
                let clean = handover::shut_down(&mut engine, grace(state)).await;
                watch.write_last(environment, state, clean)?;
                return Ok(End::Stopped);
            }
            _ = ticks.tick() => {
                watch.look(environment, state).await;
                watch.write_if_due(environment, state)?;
                engine::reap_orphans(engine.id());
            }
        }
    }
}

fn grace(state: &State) -> Duration {
    Duration::from_secs(state.config().grace_period_seconds)
}

/// What is followed of a running engine.
struct Watch {
    connection: Option<Connection>,
    answered: bool,
    term: u64,
    epoch: u64,
    last_role: Option<Role>,
    written: Option<(Instant, Lineage)>,
}

impl Watch {
    fn new(state: &State, start: &Start) -> Self {
        let own = state.lineage();
        let term = own.as_ref().map_or(0, |own| own.term);
        let (term, last_role) = match start.primary {
            None => (term.max(start.highest_term) + 1, Some(Role::Primary)),
            Some(_) => (term, Some(Role::Replica)),
        };
        Self {
            connection: None,
            answered: false,
            term,
            epoch: own.map_or(0, |own| own.epoch),
            last_role,
            written: None,
        }
    }

    /// Looks once: health, role, record.
    async fn look(&mut self, environment: &Environment, state: &State) {
        let asked = async {
            let connection = match &self.connection {
                Some(connection) => connection.clone(),
                None => Connection::open(&state.own_endpoint(environment)).await?,
            };
            Ok::<_, crate::redis::Error>((server::info(&connection).await?, connection))
        };
        match asked.await {
            Ok((info, connection)) => {
                self.answered = true;
                let stopping = state.health() == Health::Stopping;
                if !stopping {
                    state.set_health(Health::of_answer(&info));
                }
                if !info.is_loading() {
                    self.record(state, &info).await;
                    if !stopping {
                        self.keep_priority(&connection, &info).await;
                        state.set_activity(activity_of(&info));
                    }
                }
                self.connection = Some(connection);
            }
            Err(error) => {
                if state.health() != Health::Stopping {
                    state.set_health(Health::of_error(error.class(), &state.health()));
                }
                if !error.class().is_alive() {
                    self.connection = None;
                }
            }
        }
    }

    /// A replica that is whole may be elected; one that is not may not.
    async fn keep_priority(&self, connection: &Connection, info: &Info) {
        let Some(link) = info.primary_link() else { return };
        if link.up && !link.syncing && link.priority == 0 {
            let whole = redis_conf::PRIORITY_WHOLE.to_string();
            if let Err(error) = server::config_set(connection, "replica-priority", &whole).await {
                tracing::warn!(%error, "the node stays unelectable");
            }
        }
    }

    async fn record(&mut self, state: &State, info: &Info) {
        let config = state.config();
        let Some(role) = info.role() else { return };
        if role == Role::Primary && self.last_role == Some(Role::Replica) {
            self.term += 1;
        }
        self.last_role = Some(role);
        let link = info.primary_link();
        let in_sync = link.as_ref().is_none_or(|link| link.up && !link.syncing);
        let primary = link.as_ref().map(|link| link.primary.clone()).or_else(|| config.own_address().cloned());
        if let Some((named, epoch)) = peers::majority(&peers::ask_sentinels(state, &config).await)
            && in_sync
            && Some(&named) == primary.as_ref()
        {
            self.epoch = epoch;
        }
        if role == Role::Replica && in_sync {
            self.copy_term(&config, primary.as_ref()).await;
        }
        let before = state.lineage();
        let synced = in_sync || (before.is_some_and(|before| before.synced) && link.is_some_and(|link| !link.syncing));
        state.set_lineage(Some(Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: config.layer.uid,
            epoch: self.epoch,
            term: self.term,
            role,
            replication_id: info.replication_id(),
            previous_replication_id: info.previous_replication_id(),
            offset: info.offset(),
            synced,
            link_up: in_sync,
            keys: info.keys().0,
            clean_stop: false,
        }));
    }

    /// A synced replica holds its primary's line of data, so it holds its term.
    async fn copy_term(&mut self, config: &crate::model::node_config::NodeConfig, primary: Option<&Address>) {
        let Some((ordinal, address)) = config.data_nodes.iter().find(|(_, address)| Some(*address) == primary) else {
            return;
        };
        let answer = peers::ask_agent(config, *ordinal, address).await;
        if let Some(theirs) = answer.and_then(|answer| answer.lineage).filter(|theirs| theirs.role == Role::Primary) {
            self.term = theirs.term;
        }
    }

    fn write_if_due(&mut self, environment: &Environment, state: &State) -> Result<()> {
        let Some(lineage) = state.lineage().filter(|_| self.answered) else { return Ok(()) };
        let is_due = self.written.as_ref().is_none_or(|(at, written)| {
            let moved = (written.role, written.synced, written.epoch, written.term, written.link_up)
                != (lineage.role, lineage.synced, lineage.epoch, lineage.term, lineage.link_up);
            moved || (at.elapsed() >= WRITE_EVERY && *written != lineage)
        });
        if is_due {
            lineage_file::write(environment, &lineage)?;
            self.written = Some((Instant::now(), lineage));
        }
        Ok(())
    }

    fn write_last(&mut self, environment: &Environment, state: &State, clean: bool) -> Result<()> {
        let Some(mut lineage) = state.lineage().filter(|_| self.answered) else { return Ok(()) };
        lineage.clean_stop = clean;
        lineage_file::write(environment, &lineage)
    }
}

fn activity_of(info: &Info) -> Activity {
    match Health::of_answer(info) {
        Health::Loading => Activity::Loading,
        // A replica whose first sync is under way has nothing to give; one that only lost its link serves what it has.
        Health::Syncing if info.primary_link().is_some_and(|link| link.syncing) => Activity::Loading,
        _ => Activity::Serving,
    }
}
