//! The life of a data node: decide, start, watch, and begin again when the engine dies under us.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::boot::{EngineStart, wait_for_decision};
use super::cluster::files;
use super::config::{Environment, read_secret, read_users};
use super::credentials::REPLICATION_PASSWORD;
use super::damaged_files::{self, DamagedFiles};
use super::engine::{self, Restarts, StartupProgress};
use super::functions::{FunctionSnapshot, Source};
use super::health::Health;
use super::state::State;
use super::stderr_tail::StderrTail;
use super::watch::Watch;
use super::{
    Error, Result, StopSignal, ancestry, aside, chain, durable, functions, handover, lineage_file, prefix_jobs,
    redis_conf, volume_tasks,
};
use crate::model::lineage::{Activity, Aside, AsideReason, Lineage};
use crate::model::{Address, Role};

/// Between two polls of the own server: one `INFO` of some 0.1 ms. A change of role is on disk this much later.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// How an engine ends that was killed, by its own container's limit too.
const SIGKILL: i32 = 9;
/// How often the rule is asked while a pause is due: peers may have what this node cannot load by now.
const DECIDE_EVERY: Duration = Duration::from_secs(1);

/// How an engine's life ended.
enum End {
    Stopped,
    /// We ended it, to ask the rule again.
    StartsOver,
    Died {
        reached: StartupProgress,
        status: Option<ExitStatus>,
        words: String,
    },
}

/// Runs a data node until it is told to stop.
pub(crate) async fn run(environment: &Environment, state: &State, stop: &mut StopSignal) -> Result<()> {
    let program = engine::find()?;
    state.set_aside(aside::list(environment));
    state.set_ancestry(ancestry::read(environment));
    let mut restarts = Restarts::default();
    let stderr_tail = StderrTail::default();
    let mut damaged_files = DamagedFiles::default();
    let mut not_before = Instant::now();
    // The source of which the last engine did not take the functions.
    let mut refused = None;
    loop {
        state.set_activity(Activity::Deciding);
        state.set_loaded(false);
        state.set_health(Health::Deciding);
        // Decided at once whatever pause is due: a failover is asked for on the way, and others take over meanwhile.
        let decided = tokio::select! {
            decided = async {
                drop_aside(environment, state);
                read_record(environment, state)?;
                damaged_files.set_aside_damaged(environment, state, &program).await?;
                decide(environment, state, refused).await
            } => decided,
            () = stop.received() => return Ok(()),
        };
        // Another node's data replaces what an engine would load of a file that lost its end, or a person chooses it.
        if decided.is_ok() && damaged_files::truncated(environment, state).is_some() {
            not_before = Instant::now() + DECIDE_EVERY;
        }
        if Instant::now() < not_before {
            tokio::select! {
                () = sleep_until(not_before.min(Instant::now() + DECIDE_EVERY)) => continue,
                () = stop.received() => return Ok(()),
            }
        }
        let began = Instant::now();
        let put = decided.as_ref().ok().and_then(|decided| Some(decided.functions.as_ref()?.source));
        let started = decided
            .and_then(|decided| Ok((start_engine(environment, state, &program, &decided, &stderr_tail)?, decided)));
        let (reached, exit, status) = match started {
            Ok((engine, decided)) => match live(environment, state, engine, &decided, stop).await {
                End::Stopped => return Ok(()),
                End::StartsOver => continue,
                End::Died { reached, status, words } => (reached, status, words),
            },
            // A disk that is full or read-only may be mended while we wait; peers and probes get their answers meanwhile.
            Err(error @ (Error::File { .. } | Error::NoRoom(_))) => {
                state.set_trouble(Some(&error));
                (StartupProgress::Loading, None, chain(&error))
            }
            Err(error) => return Err(error),
        };
        // A library that this engine does not take must not keep it from starting: another source may have one that it takes, and the
        // operator loads the others. An engine that was killed while it started says nothing of them.
        refused = match put {
            _ if reached == StartupProgress::Serving || exit.and_then(|exit| exit.signal()) == Some(SIGKILL) => None,
            Some(source) => Some(source),
            None => refused,
        };
        functions::remove(environment);
        damaged_files.note(reached, exit);
        // Files that do not load are a person's to judge, or another node's data replaces them: a new container changes nothing.
        let counted = if damaged_files.is_known() { StartupProgress::Loading } else { reached };
        let Some(pause) = restarts.pause_after(counted, began.elapsed()) else {
            return Err(restarts.ends_at_once(&program, status, &stderr_tail.text().await).into());
        };
        tracing::warn!(
            status,
            reached = reached.word(),
            ?pause,
            "the engine ended; the node decides again after the pause"
        );
        not_before = Instant::now() + pause;
    }
}

/// How to start the engine.
struct StartDecision {
    start: EngineStart,
    /// With an append-only file: as the data on the volume is, whatever is wanted. The operator tells the running server, which
    /// then writes all into the other file.
    append_only: bool,
    functions: Option<FunctionSnapshot>,
}

/// What to start as, by what is known now. `refused`: see [`functions::find`].
async fn decide(environment: &Environment, state: &State, refused: Option<Source>) -> Result<StartDecision> {
    let append_only = read_record(environment, state)?;
    let start = wait_for_decision(environment, state).await;
    let needs_functions = start.primary.is_none() && !state.config().keeps_data;
    let functions = if needs_functions { functions::find(environment, state, refused).await } else { None };
    Ok(StartDecision { start, append_only, functions })
}

/// Reads the record of what is on the volume, and whether it needs an append-only file to be loaded.
fn read_record(environment: &Environment, state: &State) -> Result<bool> {
    state.refresh_config(environment);
    let config = state.config();
    let wanted = config.wants_append_only();
    let dataset = if config.keeps_data { lineage_file::read(environment, wanted)? } else { None };
    let append_only = match &dataset {
        Some(dataset) => dataset.append_only,
        None if config.keeps_data => lineage_file::starts_with(environment, wanted),
        None => wanted,
    };
    state.set_lineage(dataset.map(|dataset| dataset.lineage));
    Ok(append_only)
}

fn start_engine(
    environment: &Environment,
    state: &State,
    program: &Path,
    decided: &StartDecision,
    stderr_tail: &StderrTail,
) -> Result<Child> {
    let StartDecision { start, append_only, functions } = decided;
    let is_decided = start.chosen_under.is_some() || (start.yields && start.primary.is_some());
    // The rule starts a chosen node by itself where the others gave their damaged files away for it.
    let is_chosen = start.primary.is_none() && state.lineage().is_some() && damaged_files::is_chosen(state);
    if is_decided || damaged_files::is_chosen_in_part(environment, state) {
        keep_decided(environment, state)?;
    } else if is_chosen && let Err(error) = keep_decided(environment, state) {
        // The node goes on with that data, so nothing of it is lost.
        tracing::warn!(error = %chain(&error), "no copy is kept of the data that a person chose");
    }
    if start.primary.is_some() && state.lineage().as_ref().is_some_and(Lineage::is_of_unknown_origin) {
        aside::free_links(environment)?;
        state.set_aside(aside::list(environment));
    }
    let mut config = Arc::unwrap_or_clone(state.config());
    redis_conf::load_from(&mut config.settings, *append_only);
    let own = config.own_address().cloned().unwrap_or(Address(String::new()));
    let replication = read_secret(environment, REPLICATION_PASSWORD)?;
    let refuses_torn_end = *append_only && damaged_files::refuses_torn_end(state, program);
    let (primary, electable) = (start.primary.as_ref(), start.electable);
    let text = redis_conf::render(environment, &config, &own, &replication, primary, electable, refuses_torn_end);
    if config.cluster.is_some() {
        files::prepare(environment, state.lineage().is_some(), start.primary.is_none())?;
    }
    let path = environment.run.join("redis.conf");
    let users = read_users(environment)?;
    durable::replace(&environment.run.join("users.acl"), &users)?;
    state.set_users(users);
    durable::replace(&path, &text)?;
    // From here on the record on disk must not claim a clean stop: where it cannot be written the engine is not started.
    if let Some(mut lineage) = state.lineage() {
        lineage.clean_stop = false;
        // Peers tell by it whether a node has begun to start as primary.
        lineage.role = if start.primary.is_none() { Role::Primary } else { Role::Replica };
        lineage_file::write(environment, &lineage)?;
        state.set_lineage(Some(lineage));
    }
    let put = functions::put(environment, functions.as_ref())?;
    let is_waited_for = start.primary.is_none() && functions::is_waited_for(environment, &config, put);
    if is_waited_for {
        tracing::warn!(
            "nothing has the functions that applications call: the pod is not ready before the operator loads them"
        );
    }
    state.functions().set_waiting(is_waited_for);
    state.set_trouble(None);
    state.set_announced(Some(own));
    state.set_activity(Activity::Loading);
    state.set_health(Health::Starting);
    Ok(engine::start(program, &path, false, stderr_tail)?)
}

/// Keeps the files of a node that a person's decision is about, once: an engine that ends while it reads them is started again.
fn keep_decided(environment: &Environment, state: &State) -> Result<()> {
    let own = state.lineage();
    let of = |record: &Lineage| (record.replication_id.clone(), record.offset);
    let is_kept = |kept: &Aside| {
        kept.reason == AsideReason::LossAccepted
            && own.is_some()
            && kept.lineage.as_ref().map(of) == own.as_ref().map(of)
    };
    if !aside::list(environment).iter().any(is_kept) {
        aside::keep(environment, AsideReason::LossAccepted, own.as_ref())?;
    }
    state.set_aside(aside::list(environment));
    Ok(())
}

/// Watches a running engine until it ends or is told to; besides that, what caches ask to be removed is.
async fn live(
    environment: &Environment,
    state: &State,
    engine: Child,
    decided: &StartDecision,
    stop: &mut StopSignal,
) -> End {
    tokio::select! {
        end = watch(environment, state, engine, decided, stop) => end,
        () = prefix_jobs::run(environment, state) => End::StartsOver,
    }
}

async fn watch(
    environment: &Environment,
    state: &State,
    mut engine: Child,
    decided: &StartDecision,
    stop: &mut StopSignal,
) -> End {
    let mut watch = Watch::new(environment, state, &decided.start, decided.append_only);
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let poll = async |ticks: &mut tokio::time::Interval, watch: &mut Watch| {
        watch.wait_for_turn(ticks, environment, state).await;
        state.refresh_config(environment);
        let _ = watch.poll(environment, state).await;
    };
    loop {
        tokio::select! {
            status = engine.wait() => {
                watch.take_back(environment, state).await;
                let words = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                return End::Died { reached: watch.reached(), status: status.ok(), words };
            }
            () = stop.received() => {
                state.set_activity(Activity::Stopping);
                state.set_health(Health::Stopping);
                state.refresh_config(environment);
                watch.read_counters(state).await;
                // The look that the order ended may have seen a promotion and not noted whose data the links are. Another node may be
                // primary before the next one.
                watch.poll(environment, state).await;
                if handover::hand_over(environment, state).await {
                    watch.note_handed_over();
                }
                watch.end_engine(environment, state, &mut engine, grace(state)).await;
                return End::Stopped;
            }
            // In the race: an engine that dies, or an order to stop, is not kept waiting by a server that does not answer.
            () = poll(&mut ticks, &mut watch) => {
                watch.write_if_due(environment, state);
                engine::reap_orphans(engine.id());
                if watch.reached() == StartupProgress::Serving && !state.is_loaded() {
                    state.set_loaded(true);
                    state.set_unusable(None);
                    watch.remove_functions();
                }
                if watch.is_to_end() {
                    // What it confirmed is in its file; it would take no order to stop.
                    let _ = engine.start_kill();
                }
                if let Some(reason) = watch.starts_over(state).await {
                    tracing::warn!(reason, "the engine is ended, and the boot rule is asked again");
                    state.set_activity(Activity::Stopping);
                    state.set_health(Health::Stopping);
                    watch.read_counters(state).await;
                    let has_ended = watch.end_engine(environment, state, &mut engine, grace(state)).await;
                    if !has_ended && let Err(error) = engine.kill().await {
                        tracing::warn!(%error, "cannot kill the engine");
                    }
                    return End::StartsOver;
                }
            }
        }
    }
}

/// Removes what a person says is not needed, while no engine runs.
fn drop_aside(environment: &Environment, state: &State) {
    let dropped = volume_tasks::dropped(state);
    if !dropped.is_empty() {
        volume_tasks::remove(environment, dropped);
        state.set_aside(aside::list(environment));
    }
}

fn grace(state: &State) -> Duration {
    Duration::from_secs(state.config().grace_period_seconds)
}
