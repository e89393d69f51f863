//! Calls of the session functions, as an application makes them.

use redis::Value;
use redoubt::dataplane::{load, session_library};
use redoubt::model::UseKind;
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::redis::Connection;
use redoubt::redis::counters::page;

use super::engine_process::{Engine, Process};
pub use super::function_calls::{call, contents, number, refusal, server_time};

/// One hour of milliseconds.
pub const HOUR: u64 = 3_600_000;

/// A policy with the prefix `NAME:`: an hour idle, twelve in all, each read renews, any number of sessions.
pub fn policy(name: &str) -> SessionPolicy {
    SessionPolicy {
        store: format!("shop/{name}"),
        generation: 1,
        prefix: format!("{name}:"),
        idle_timeout_milliseconds: HOUR,
        absolute_lifetime_milliseconds: 12 * HOUR,
        touch_interval_milliseconds: 0,
        max_per_user: None,
        on_exceed: OnExceed::EvictOldest,
    }
}

/// A server with these stores.
pub async fn server_with(engine: &Engine, policies: &[SessionPolicy], lines: &[&str]) -> (Process, Connection) {
    let process = Process::server(engine, lines).await;
    let connection = process.connect().await;
    load(&connection, &session_library(policies)).await.unwrap();
    (process, connection)
}

/// A session as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub version: i64,
    pub created: i64,
    pub expires: i64,
    pub user: String,
    /// Sorted by name.
    pub fields: Vec<(String, String)>,
}

/// Reads a session with `session_get` or `session_get_ro`; `None`: there is none.
pub async fn read(connection: &Connection, function: &str, key: &str) -> Option<Read> {
    let answer = call(connection, function, &[key], &[]).await.unwrap();
    if answer == Value::Nil {
        return None;
    }
    let (version, created, expires, user, flat): (i64, i64, i64, String, Vec<String>) =
        redis::from_redis_value(answer).unwrap();
    let mut fields: Vec<_> = flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    fields.sort();
    Some(Read { version, created, expires, user, fields })
}

/// Ids, creations and expiries of a user's sessions.
pub async fn list(connection: &Connection, index: &str) -> Vec<(String, i64, i64)> {
    redis::from_redis_value(call(connection, "session_list", &[index], &[]).await.unwrap()).unwrap()
}

/// A counter of a store; 0 if it has none yet.
pub async fn counter(connection: &Connection, store: &str, name: &str) -> i64 {
    let columns = UseKind::SessionStore.words().counters.unwrap().names;
    let at = columns.iter().position(|(known, _)| *known == name).unwrap();
    let rows = page(connection, UseKind::SessionStore, 0).await.unwrap().rows;
    let row = rows.into_iter().find(|row| row.owner == store);
    row.map_or(0, |row| i64::try_from(row.counts[at]).unwrap())
}
