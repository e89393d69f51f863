//! The life of a Sentinel: started with what it remembers, and shown the primary where it remembers none.

use std::fs;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::config::{Environment, read_node_config, read_secret, read_users};
use super::engine::{self, Error as EngineError};
use super::health::Health;
use super::state::State;
use super::{Error, Result, StopSignal, handover, peers, sentinel_conf};
use crate::model::lineage::Activity;
use crate::model::node_config::REDIS_PORT;
use crate::model::{Address, Role};
use crate::redis::{Connection, info_window, sentinel, server};

/// Between two looks at the own Sentinel.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A Sentinel keeps nothing that it would have to write at the end.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// As for data nodes: this often without an answer, and it will not get better.
const HOPELESS_STARTS: u32 = 3;

/// Runs a Sentinel until it is told to stop.
pub async fn run(environment: &Environment, state: &State, stop: &mut StopSignal) -> Result<()> {
    let program = engine::find()?;
    let mut hopeless = 0;
    loop {
        state.set_config(read_node_config(environment)?);
        let path = write_configuration(environment, state).await?;
        state.set_health(Health::Starting);
        let mut child = engine::start(&program, &path, true)?;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => {
                    break status.map_or_else(|error| error.to_string(), |status| status.to_string());
                }
                () = stop.received() => {
                    state.set_health(Health::Stopping);
                    handover::shut_down(&mut child, STOP_WITHIN).await;
                    return Ok(());
                }
                _ = ticks.tick() => {
                    answered |= look(environment, state).await;
                    engine::reap_orphans(child.id());
                }
            }
        };
        tracing::warn!(status, "the Sentinel ended");
        hopeless = if answered { 0 } else { hopeless + 1 };
        if hopeless == HOPELESS_STARTS {
            let program = program.display().to_string();
            return Err(EngineError::EndsAtOnce { program, times: hopeless, status }.into());
        }
    }
}

async fn write_configuration(environment: &Environment, state: &State) -> Result<std::path::PathBuf> {
    let config = state.config();
    let path = environment.data.join("sentinel.conf");
    let old = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::File { doing: "reading", path: path.display().to_string(), source }),
    };
    let mut remembered = sentinel_conf::remember(&old, &config);
    if remembered.primary.is_none() {
        remembered.primary = find_primary(state).await;
    }
    let own = config.own_address().cloned().unwrap_or(Address(String::new()));
    let password = read_secret(environment, "sentinel-password")?;
    let users = read_users(environment)?;
    let text = sentinel_conf::render(environment, &config, &own, &remembered, &password, &users);
    fs::write(&path, text).map_err(|source| Error::File {
        doing: "writing",
        path: path.display().to_string(),
        source,
    })?;
    Ok(path)
}

/// Looks once, and shows the Sentinel its primary if it knows none. True: it answers.
async fn look(environment: &Environment, state: &State) -> bool {
    let connection = match Connection::open(&state.own_endpoint(environment)).await {
        Ok(connection) => connection,
        Err(error) => {
            state.set_health(Health::of_error(error.class(), &state.health()));
            return false;
        }
    };
    if let Err(error) = server::ping(&connection).await {
        state.set_health(Health::of_error(error.class(), &state.health()));
        return false;
    }
    state.set_health(Health::Serving);
    // At each look, because it is forgotten at a restart and a mover that was killed may have left another.
    if let Err(error) = sentinel::set_info_period(&connection, info_window::PERIOD).await {
        tracing::debug!(%error, "the Sentinel keeps its own pace");
    }
    if let Err(error) = show_primary(environment, state, &connection).await {
        tracing::warn!(%error, "the Sentinel could not be shown its primary");
    }
    true
}

async fn show_primary(environment: &Environment, state: &State, connection: &Connection) -> Result<(), ShowError> {
    let config = state.config();
    if sentinel::primary_address(connection, &config.master_name).await?.is_some() {
        return Ok(());
    }
    let Some(primary) = find_primary(state).await else { return Ok(()) };
    let password = read_secret(environment, "sentinel-password")?;
    sentinel::monitor(connection, &config.master_name, &primary, REDIS_PORT, config.quorum).await?;
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
enum ShowError {
    #[error(transparent)]
    Command(#[from] crate::redis::Error),
    #[error(transparent)]
    Config(#[from] super::ConfigError),
}

/// The primary that the other Sentinels name; failing that, the only data node that serves as one.
async fn find_primary(state: &State) -> Option<Address> {
    let config = state.config();
    let (views, answers) = tokio::join!(peers::ask_sentinels(state, &config), peers::ask_agents(&config));
    let named = views.iter().filter_map(|view| match view {
        peers::View::Names(address, epoch) => Some((*epoch, address)),
        peers::View::NamesNobody | peers::View::Silent => None,
    });
    if let Some((_, address)) = named.max() {
        return Some(address.clone());
    }
    let mut serving = answers.values().flatten().filter(|answer| {
        answer.activity == Activity::Serving && answer.lineage.as_ref().is_some_and(|own| own.role == Role::Primary)
    });
    let (first, second) = (serving.next(), serving.next());
    if second.is_some() {
        return None;
    }
    config.data_nodes.get(&first?.ordinal).cloned()
}
