//! Steps on running servers. Each first makes sure that it speaks to the very process that it was decided for: a server that
//! was restarted in between has other settings, users and data than the plan knew.

use std::collections::BTreeMap;

use super::{Error, StepOutcome};
use crate::dataplane::{Library, load};
use crate::model::cluster::ClusterNodeId;
use crate::model::desired::{DesiredUser, SentinelSettings};
use crate::model::function_library::is_users_library;
use crate::model::node_config::REDIS_PORT;
use crate::model::slots::SlotSet;
use crate::model::{Address, milliseconds};
use crate::redis::{Connection, cluster, functions, sentinel, server, users};

/// Whether the server is still the process with this `run_id`.
pub(crate) async fn is_process(connection: &Connection, run_id: &str) -> Result<bool, Error> {
    Ok(server::info(connection).await?.run_id() == Some(run_id))
}

/// Sets directives and reads them back. A directive that this server does not take is told, not tried again at once.
pub(crate) async fn set_settings(
    connection: &Connection,
    changes: &BTreeMap<String, String>,
) -> Result<StepOutcome, Error> {
    let refused = server::config_set_all(connection, changes).await?;
    if !refused.is_empty() {
        let words: Vec<String> =
            refused.iter().map(|setting| format!("{}: {}", setting.name, setting.reason)).collect();
        return Ok(StepOutcome::Refused(words.join("; ")));
    }
    let names: Vec<&str> = changes.keys().map(String::as_str).collect();
    let live = server::config_get(connection, &names).await?;
    let differing: Vec<&str> =
        changes.iter().filter(|(name, value)| live.get(*name) != Some(value)).map(|(name, _)| name.as_str()).collect();
    if differing.is_empty() {
        Ok(StepOutcome::Done)
    } else {
        Ok(StepOutcome::Refused(format!("the server reports another value afterwards: {}", differing.join(", "))))
    }
}

/// Creates or mends a user. One that is switched off loses the connections that it still has; so does an application whose
/// password is another one now (a store that was made again under its old name): a server leaves them logged in. Replicas and
/// Sentinels keep theirs, which are the same servers.
pub async fn set_user(connection: &Connection, name: &str, user: &DesiredUser) -> Result<StepOutcome, Error> {
    let before = if users::is_application_user(name) { server::acl_list(connection).await? } else { Vec::new() };
    server::acl_set_user(connection, name, &user.rules).await?;
    if !user.is_on() || passwords(&before, name).any(|password| !user.rules.iter().any(|rule| rule == password)) {
        server::cut_user(connection, name).await?;
    }
    Ok(StepOutcome::Done)
}

/// The password digests of a user in the lines of `ACL LIST`, each with its `#`.
fn passwords<'lines>(lines: &'lines [String], name: &str) -> impl Iterator<Item = &'lines str> {
    let prefix = format!("user {name} ");
    let line = lines.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default();
    line.split_whitespace().filter(|word| word.starts_with('#'))
}

/// Removes a user and ends its connections.
pub(crate) async fn delete_user(connection: &Connection, name: &str) -> Result<StepOutcome, Error> {
    server::acl_delete_user(connection, name).await?;
    Ok(StepOutcome::Done)
}

/// Loads a library and has it say its digest. What the server says of a user's source is a refusal: trying again changes nothing.
pub async fn load_library(connection: &Connection, library: &Library) -> Result<StepOutcome, Error> {
    match load(connection, library).await {
        Ok(()) => Ok(StepOutcome::Done),
        Err(error) => match error.refusal().filter(|_| is_users_library(&library.name)) {
            Some(words) => Ok(StepOutcome::Refused(words)),
            None => Err(error.into()),
        },
    }
}

pub(crate) async fn delete_library(connection: &Connection, library: &str) -> Result<StepOutcome, Error> {
    functions::delete(connection, library).await?;
    Ok(StepOutcome::Done)
}

/// Tells a Sentinel its quorum and times.
pub(crate) async fn set_sentinel(
    connection: &Connection,
    master: &str,
    settings: SentinelSettings,
) -> Result<StepOutcome, Error> {
    let detection = milliseconds(settings.detection).to_string();
    let options = [
        ("quorum", settings.quorum.to_string()),
        ("down-after-milliseconds", detection.clone()),
        ("failover-timeout", milliseconds(settings.failover_timeout).to_string()),
        ("parallel-syncs", settings.parallel_syncs.to_string()),
        // Otherwise a primary that restarts and loads for minutes counts as alive (DESIGN §2).
        ("master-reboot-down-after-period", detection),
    ];
    for (option, value) in options {
        sentinel::set(connection, master, option, &value).await?;
    }
    Ok(StepOutcome::Done)
}

/// Makes a Sentinel forget what is gone, unless it is electing: a reset would end the election without a result.
pub(crate) async fn reset_sentinel(connection: &Connection, master: &str) -> Result<StepOutcome, Error> {
    let known = sentinel::master(connection, master).await?;
    if known.is_none_or(|known| known.is_failing_over()) {
        return Ok(StepOutcome::Dropped("a failover is under way".to_owned()));
    }
    sentinel::reset(connection, master).await?;
    Ok(StepOutcome::Done)
}

/// Makes a replica follow the primary that the Sentinels name.
pub(crate) async fn repoint(connection: &Connection, primary: &Address) -> Result<StepOutcome, Error> {
    server::replica_of(connection, &primary.0, REDIS_PORT).await?;
    Ok(StepOutcome::Done)
}

/// Gives a server slots that no server owns. One that knows an owner of any of them by now refuses, and the next plan goes by what it knows.
pub(crate) async fn add_slots(connection: &Connection, slots: &SlotSet) -> Result<StepOutcome, Error> {
    dropped_if_refused(cluster::add_slots(connection, slots).await)
}

/// Makes a server forget one that is gone. It may have forgotten it by itself.
pub(crate) async fn forget(connection: &Connection, gone: &ClusterNodeId) -> Result<StepOutcome, Error> {
    dropped_if_refused(cluster::forget(connection, gone).await)
}

fn dropped_if_refused(outcome: crate::redis::Result<()>) -> Result<StepOutcome, Error> {
    match outcome {
        Ok(()) => Ok(StepOutcome::Done),
        Err(error) => error.server_text().map(StepOutcome::Dropped).ok_or_else(|| error.into()),
    }
}
