//! Calls of the caches' functions, as an application makes them.

use redis::{Cmd, Value, cmd};
use redoubt::dataplane::{cache_library, load};
use redoubt::model::cache_policy::{CHANNEL, CachePolicy};
use redoubt::redis::Connection;

use super::engine_process::{Engine, Process};
use super::function_calls::{call, function_call};

/// A minute of milliseconds.
pub const MINUTE: u64 = 60_000;
/// An hour of milliseconds.
pub const HOUR: u64 = 60 * MINUTE;

/// A namespace with the prefix `NAME:` in which nothing is left to chance: fresh for an hour, never stale, known to be absent for a
/// minute, leases of a minute, no early refresh.
pub fn policy(name: &str) -> CachePolicy {
    CachePolicy {
        owner: format!("shop/{name}"),
        generation: 1,
        prefix: format!("{name}:"),
        ttl_ms: HOUR,
        max_ttl_ms: 24 * HOUR,
        jitter_percent: 0,
        stale_ms: 0,
        negative_ms: MINUTE,
        lease_ms: MINUTE,
        early_percent: 0,
        max_entry_bytes: 1 << 20,
        channel: format!("{CHANNEL}{name}:"),
    }
}

/// A server with these namespaces.
pub async fn server_with(engine: &Engine, policies: &[CachePolicy], lines: &[&str]) -> (Process, Connection) {
    let process = Process::server(engine, lines).await;
    let connection = process.connect().await;
    load(&connection, &cache_library(policies)).await.unwrap();
    (process, connection)
}

/// What a reading call answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 1, 4, 2: serve; 3, 5, 0: compute; -1, -2: wait or fail.
    pub verdict: i64,
    pub value: Option<String>,
    /// Empty without a lease.
    pub token: String,
    /// Milliseconds: of the lease, or after which to ask again.
    pub milliseconds: i64,
}

impl Answer {
    /// Reads a reply.
    pub fn read(reply: Value) -> Self {
        let Value::Array(parts) = &reply else { panic!("{reply:?}") };
        if parts.len() == 2 {
            let (verdict, value) = redis::from_redis_value(reply).unwrap();
            return Self { verdict, value, ..Self::default() };
        }
        let (verdict, value, token, milliseconds) = redis::from_redis_value(reply).unwrap();
        Self { verdict, value, token, milliseconds }
    }

    /// Verdict and value.
    pub fn served(&self) -> (i64, Option<&str>) {
        (self.verdict, self.value.as_deref())
    }
}

/// Calls a function that reads: `get`, `get_ro` or `check`.
pub async fn read(connection: &Connection, function: &str, key: &str) -> Answer {
    let reply = call(connection, &format!("cache_{function}"), &[key], &[]).await;
    Answer::read(reply.unwrap_or_else(|error| panic!("{function} {key}: {error:?}")))
}

/// Calls `redoubt_cache_get`.
pub async fn get(connection: &Connection, key: &str) -> Answer {
    read(connection, "get", key).await
}

/// The token of an entry that is to be computed by the caller.
pub async fn lease(connection: &Connection, key: &str) -> String {
    let answer = get(connection, key).await;
    assert!(!answer.token.is_empty(), "{key}: {answer:?}");
    answer.token
}

/// Calls a function that answers an integer.
pub async fn cache_call(connection: &Connection, function: &str, key: &str, arguments: &[&str]) -> i64 {
    super::function_calls::number(connection, &format!("cache_{function}"), &[key], arguments).await
}

/// The command of `redoubt_cache_get`.
pub fn get_call(key: &str) -> Cmd {
    function_call("cache_get", &[key], &[])
}

/// Milliseconds until a key ends.
pub async fn ends_in(connection: &Connection, key: &str) -> i64 {
    connection.query(cmd("PTTL").arg(key)).await.unwrap()
}

/// A counter of the namespace with this prefix.
pub async fn counter(connection: &Connection, prefix: &str, name: &str) -> i64 {
    let stats: Vec<(String, i64)> =
        redis::from_redis_value(call(connection, "cache_stats", &[&format!("{prefix}{{0}}")], &[]).await.unwrap())
            .unwrap();
    stats.into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no counter {name}")).1
}
