//! The life of a Sentinel: started with what it remembers, and shown the primary where it remembers none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};

use super::client_memory::ClientMemory;
use super::config::{Environment, read_secret, read_users};
use super::credentials::{Given, Lockout, SENTINEL_PASSWORD};
use super::disagreement::Disagreement;
use super::engine::{self, Restarts, StartupProgress};
use super::epochs::EpochCheck;
use super::health::Health;
use super::late_election::LateElection;
use super::rivals::serving_primary;
use super::spin::Spin;
use super::state::State;
use super::stderr_tail::StderrTail;
use super::unknown_replicas::{self, UnknownReplicas};
use super::unresponsive::UnresponsiveServer;
use super::wall_clock::WallClock;
use super::{Error, Result, StopSignal, chain, durable, epochs, introduction, peers, promotion, sentinel_conf, stray};
use crate::model::Address;
use crate::model::node_config::REDIS_PORT;
use crate::redis::{Connection, Secret, info_window, sentinel, server};

/// Between two polls of the own Sentinel.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Between two `PING` of the Sentinel to the same server. A silent server is down when one has waited for the time of
/// detection, and with the period of 1 s that Sentinels have by themselves, that time begins up to a second late. Not less: a
/// Sentinel whose primary is down elects no replica of which it has had no `INFO` for five of these periods, and then asks
/// only once a second (`sentinelSelectSlave`); with 200 ms it would at times find no replica, and try again half a minute later.
const PING_PERIOD: Duration = Duration::from_millis(400);
/// Between two questions to the other Sentinels whether they agree that the primary is down.
const ASK_PERIOD: Duration = Duration::from_millis(200);
/// A Sentinel keeps nothing that it would have to write at the end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Runs a Sentinel until it is told to stop.
pub(crate) async fn run(environment: &Environment, state: &State, stop: &mut StopSignal) -> Result<()> {
    let program = engine::find()?;
    let mut restarts = Restarts::default();
    let stderr_tail = StderrTail::default();
    let mut adds_replicas = false;
    loop {
        state.set_health(Health::Starting);
        let started = tokio::select! {
            started = configure_and_start(environment, state, &program, adds_replicas, &stderr_tail) => started,
            () = stop.received() => return Ok(()),
        };
        let began = Instant::now();
        let (reached, status) = match started {
            Ok((child, password)) => match live(environment, state, child, password, stop).await {
                End::Stopped => return Ok(()),
                End::Ordered => {
                    adds_replicas = true;
                    continue;
                }
                End::Died { reached, status } => (reached, status),
            },
            // As for data nodes: the disk may be mended.
            Err(error @ Error::File { .. }) => {
                state.set_trouble(Some(&error));
                (StartupProgress::Loading, chain(&error))
            }
            Err(error) => return Err(error),
        };
        state.set_health(Health::Starting);
        let Some(pause) = restarts.pause_after(reached, began.elapsed()) else {
            return Err(restarts.ends_at_once(&program, status, &stderr_tail.text().await).into());
        };
        tracing::warn!(status, ?pause, "the Sentinel ended; it starts again after the pause");
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.received() => return Ok(()),
        }
    }
}

/// How a Sentinel's life ended.
enum End {
    Stopped,
    /// We ended it, to restart it: it keeps what it knows and is away for a moment.
    Ordered,
    Died {
        reached: StartupProgress,
        status: String,
    },
}

/// Watches a running Sentinel until it ends or is told to.
async fn live(
    environment: &Environment,
    state: &State,
    mut child: Child,
    password: Secret,
    stop: &mut StopSignal,
) -> End {
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut followed = SentinelWatch { password: Some(password), ..SentinelWatch::default() };
    let pid = child.id();
    let poll = async |ticks: &mut Interval, followed: &mut SentinelWatch| {
        ticks.tick().await;
        state.refresh_config(environment);
        poll_sentinel(environment, state, followed, pid).await
    };
    let mut reached = StartupProgress::Nothing;
    let mut spin = Spin::default();
    let mut announcing = std::pin::pin!(promotion::announce_promotions(environment, state));
    loop {
        tokio::select! {
            never = &mut announcing => match never {},
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return End::Died { reached, status };
            }
            () = stop.received() => {
                state.set_health(Health::Stopping);
                shut_down(&mut child).await;
                return End::Stopped;
            }
            answers = poll(&mut ticks, &mut followed) => {
                engine::reap_orphans(child.id());
                if answers {
                    reached = StartupProgress::Serving;
                } else {
                    spin.forget();
                }
                if followed.is_to_end {
                    // It would take no order to stop.
                    let _ = child.start_kill();
                }
                if let Some(reason) = reason_to_restart(environment, state, &mut spin, &mut followed, child.id()).await {
                    tracing::warn!(reason, "the Sentinel restarts");
                    shut_down(&mut child).await;
                    return End::Ordered;
                }
            }
        }
    }
}

async fn shut_down(sentinel: &mut Child) {
    engine::order_to_end(sentinel);
    let _ = timeout(STOP_WITHIN, sentinel.wait()).await;
}

async fn reason_to_restart(
    environment: &Environment,
    state: &State,
    spin: &mut Spin,
    followed: &mut SentinelWatch,
    pid: Option<u32>,
) -> Option<&'static str> {
    if state.announced().as_ref() != state.config().own_address() {
        return Some("its Service came back with another address, and a Sentinel announces its own from its start on");
    }
    if followed.clock.is_set_back() {
        return Some("its clock was set back, and until it is as late again it takes no server for down");
    }
    if followed.unknown.is_lasting() {
        return Some("its primary is down, and it does not know the replicas that could be elected");
    }
    if followed.is_locked {
        return Some("it refuses the agent, and its Secret has other users than it was started with");
    }
    if let Some(given) = &followed.password
        && followed.given.check_sentinel(environment, state, given, followed.sees_primary_down).await
    {
        return Some("data nodes refuse its password, and take the one that its Secret has now");
    }
    spin.is_to_end(environment, state, pid).await.then_some("its event loop never rests")
}

async fn configure_and_start(
    environment: &Environment,
    state: &State,
    program: &Path,
    adds_replicas: bool,
    stderr_tail: &StderrTail,
) -> Result<(Child, Secret)> {
    state.refresh_config(environment);
    let (path, password) = write_configuration(environment, state, adds_replicas).await?;
    state.set_trouble(None);
    Ok((engine::start(program, &path, true, stderr_tail)?, password))
}

/// Renders the file around what the old one remembers. Only while the Sentinel does not run: then it rewrites the file
/// itself, at each change of what it believes, as carefully as [`durable::replace`] does.
async fn write_configuration(
    environment: &Environment,
    state: &State,
    adds_replicas: bool,
) -> Result<(PathBuf, Secret)> {
    let config = state.config();
    let path = environment.data.join("sentinel.conf");
    let old = durable::read(&path)?.unwrap_or_default();
    let damage = sentinel_conf::damage(&old, &config.master_name);
    if let Some(problem) = damage {
        durable::set_aside(&path, problem);
    }
    let mut remembered = sentinel_conf::remember(&old, &config);
    if old.is_empty() || damage.is_some() {
        remembered.raise_to(epochs::recorded(state).await);
    }
    if remembered.primary.is_none() {
        remembered.primary = find_primary(state).await;
    }
    if adds_replicas {
        remembered.replicas.extend(unknown_replicas::running(&config).await);
    }
    let own = config.own_address().cloned().unwrap_or(Address(String::new()));
    let password = read_secret(environment, SENTINEL_PASSWORD)?;
    let users = read_users(environment)?;
    durable::replace(&path, sentinel_conf::render(environment, &config, &own, &remembered, &password, &users))?;
    state.set_announced(Some(own));
    state.set_users(users);
    Ok((path, password))
}

/// Between two polls at what a Sentinel knows that knew all it should at the last one.
const KNOWS_FOR: Duration = Duration::from_secs(1);

/// What the agent watches of a running Sentinel.
#[derive(Default)]
struct SentinelWatch {
    connection: Option<Connection>,
    info_period: InfoPeriod,
    disagreement: Disagreement,
    epochs: EpochCheck,
    unknown: UnknownReplicas,
    late: LateElection,
    unresponsive: UnresponsiveServer,
    client_memory: ClientMemory,
    clock: WallClock,
    lockout: Lockout,
    /// Whether it refuses the agent, and a restart gives it users that do not.
    is_locked: bool,
    /// The password that it was started with.
    password: Option<Secret>,
    given: Given,
    sees_primary_down: bool,
    /// Whether the Sentinel answers nothing any more.
    is_to_end: bool,
    /// When it last knew all that it should.
    knew: Option<Instant>,
}

/// Keeps the periods of the Sentinel's `PING` and `INFO` ([`info_window`]): set after each start, and that of `INFO` again where a
/// planned move, which changes it for some seconds, was killed.
#[derive(Default)]
struct InfoPeriod {
    polled: Option<Instant>,
    was_off: bool,
    pings: bool,
}

impl InfoPeriod {
    /// Longer than a planned move takes: what is off at two polls in a row was left behind.
    const POLL_EVERY: Duration = Duration::from_secs(5);

    async fn keep(&mut self, connection: &Connection, ordinal: u16) {
        let is_first = self.polled.is_none();
        if self.polled.is_some_and(|at| at.elapsed() < Self::POLL_EVERY) {
            return;
        }
        self.polled = Some(Instant::now());
        let usual = info_window::period_of(ordinal);
        let kept = async {
            if !self.pings {
                sentinel::set_ping_period(connection, PING_PERIOD).await?;
                sentinel::set_ask_period(connection, ASK_PERIOD).await?;
                self.pings = true;
            }
            let is_off = sentinel::info_period(connection).await? != Some(usual);
            if is_off && (is_first || self.was_off) {
                return sentinel::set_info_period(connection, usual).await.map(|()| false);
            }
            Ok(is_off)
        };
        match kept.await {
            Ok(is_off) => self.was_off = is_off,
            Err(error) => tracing::info!(%error, "the Sentinel keeps its own pace"),
        }
    }
}

/// Looks once, and shows the Sentinel its primary if it knows none. True: it answers.
async fn poll_sentinel(
    environment: &Environment,
    state: &State,
    followed: &mut SentinelWatch,
    pid: Option<u32>,
) -> bool {
    let asked = async {
        let connection = match followed.connection.take() {
            Some(connection) => connection,
            None => state.open_own(environment).await?,
        };
        server::ping(&connection).await?;
        Ok::<_, crate::redis::Error>(connection)
    };
    let connection = match asked.await {
        Ok(connection) => connection,
        Err(error) => {
            state.set_health(Health::of_error(error.class(), &state.health()));
            // What it knows is in its file.
            followed.is_to_end = followed.unresponsive.note_failure(&state.config(), &error, true);
            followed.is_locked = followed.lockout.note_failure(environment, state, &error);
            return false;
        }
    };
    followed.unresponsive.ends(None);
    followed.lockout.ends();
    followed.connection = Some(connection.clone());
    state.set_health(if followed.given.is_refused() { Health::Refused } else { Health::Serving });
    followed.client_memory.reclaim_from_sentinel(&connection, pid).await;
    followed.info_period.keep(&connection, state.config().node.ordinal).await;
    if followed.knew.is_none_or(|at| at.elapsed() >= KNOWS_FOR) {
        followed.knew = match keep_monitoring(environment, state, &connection, followed).await {
            Ok(knows) => knows.then(Instant::now),
            Err(error) => {
                tracing::warn!(%error, "cannot show the Sentinel its primary");
                None
            }
        };
    }
    true
}

/// Sees to it that the Sentinel watches the primary, shown where it watches none and again where it is left behind, and that it
/// knows the others. True: it did all by itself.
async fn keep_monitoring(
    environment: &Environment,
    state: &State,
    connection: &Connection,
    followed: &mut SentinelWatch,
) -> Result<bool, MonitorError> {
    let config = state.config();
    let Some(own) = sentinel::master(connection, &config.master_name).await? else {
        if let Some(primary) = find_primary(state).await {
            monitor_primary(environment, state, connection, &primary).await?;
        }
        return Ok(false);
    };
    followed.sees_primary_down = own.is_down();
    if stray::correct(state, &own, connection).await? {
        return Ok(false);
    }
    if let Some(right) = followed.disagreement.primary_to_restore(state, &own).await {
        tracing::warn!(named = %own.address, epoch = own.config_epoch, %right, "the Sentinel is left behind");
        // Killed between the two, it is a Sentinel that watches none.
        sentinel::remove(connection, &config.master_name).await?;
        monitor_primary(environment, state, connection, &right).await?;
        return Ok(false);
    }
    let introduced = introduction::introduce(connection, &config, &own).await?;
    let is_raised = followed.epochs.raise_if_due(connection, &config, &own).await?;
    followed.unknown.update(&config, &own).await;
    followed.late.adjust_detection(connection, &config, &own).await?;
    Ok(introduced == 0 && !is_raised && !followed.disagreement.is_suspected() && !followed.unknown.is_suspected())
}

async fn monitor_primary(
    environment: &Environment,
    state: &State,
    connection: &Connection,
    primary: &Address,
) -> Result<(), MonitorError> {
    let config = state.config();
    let password = read_secret(environment, SENTINEL_PASSWORD)?;
    sentinel::monitor(connection, &config.master_name, primary, REDIS_PORT, config.quorum).await?;
    for (option, value) in sentinel_conf::options(&config, &password) {
        // Valkey and older servers may lack an option; the others still count.
        if let Err(error) = sentinel::set(connection, &config.master_name, option, &value).await {
            tracing::warn!(option, %error, "option not set");
        }
    }
    tracing::info!(%primary, "monitoring");
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum MonitorError {
    #[error(transparent)]
    Command(#[from] crate::redis::Error),
    #[error(transparent)]
    Config(#[from] super::ConfigError),
}

/// The primary that most Sentinels name, or the newest knowledge of any; failing that, the data node that serves as the layer's.
async fn find_primary(state: &State) -> Option<Address> {
    let config = state.config();
    let (views, answers) = tokio::join!(peers::ask_sentinels(state, &config), peers::ask_agents(&config));
    if let Some((address, _)) = peers::majority(&views) {
        return Some(address);
    }
    let named = views.iter().filter_map(|view| match view {
        peers::View::Names(address, epoch) => Some((*epoch, address)),
        peers::View::NamesNone | peers::View::Silent => None,
    });
    if let Some((_, address)) = named.max() {
        return Some(address.clone());
    }
    serving_primary(&config, &answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_replica_becomes_unfit_between_two_infos() {
        // A tick of Sentinel takes up to 100 ms, and a busy machine may stall it for a while.
        let (tick, stall) = (Duration::from_millis(100), Duration::from_millis(500));
        assert!(5 * PING_PERIOD > info_window::WHILE_FAILING_OVER + tick + stall, "while its primary is down");
        assert!((0..5).all(|ordinal| 2 * info_window::period_of(ordinal) > tick + stall), "at rest: three periods");
    }
}
