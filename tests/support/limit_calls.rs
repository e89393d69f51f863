//! Calls of the limits' functions, as an application makes them.

use redis::{Cmd, Value};
use redoubt::dataplane::{limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::counters::Row;
use redoubt::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::redis::Connection;
use redoubt::redis::counters::page;

use super::engine_process::{Engine, Process};
use super::function_calls::{call, function_call};

/// A minute of milliseconds.
pub const MINUTE: u64 = 60_000;

/// A limit that enforces.
pub fn limit(name: &str, algorithm: Algorithm, quota: u64, window_milliseconds: u64) -> Limit {
    Limit { name: name.to_owned(), algorithm, quota, window_milliseconds, mode: LimitMode::Enforce }
}

/// Each algorithm; those with a burst with this one.
pub fn algorithms(burst: u64) -> [Algorithm; 8] {
    [
        Algorithm::Gcra { burst },
        Algorithm::TokenBucket { burst },
        Algorithm::LeakyMeter { burst },
        Algorithm::LeakyShaper { burst },
        Algorithm::SlidingLog { max_entries: 10_000 },
        Algorithm::SlidingCounter,
        Algorithm::FixedWindow,
        Algorithm::FixedWindowFromFirstHit,
    ]
}

/// A draft of a policy with the prefix `NAME:`, in one shard, enforced.
pub fn draft(name: &str, limits: Vec<Limit>) -> LimitPolicyDraft {
    LimitPolicyDraft {
        policy: format!("shop/{name}"),
        generation: 1,
        prefix: format!("{name}:"),
        mode: LimitMode::Enforce,
        count_denied: false,
        shards: 1,
        limits,
    }
}

/// A policy with the prefix `NAME:`, in one shard, enforced.
pub fn policy(name: &str, limits: Vec<Limit>) -> LimitPolicy {
    LimitPolicy::parse(draft(name, limits)).unwrap()
}

/// A policy of one limit, `only`, of that prefix and algorithm.
pub fn single(name: &str, algorithm: Algorithm, quota: u64, window_milliseconds: u64) -> LimitPolicy {
    policy(name, vec![limit("only", algorithm, quota, window_milliseconds)])
}

/// For each algorithm a policy whose prefix is its letter: this quota, also as burst, in this window.
pub fn one_of_each(quota: u64, window_milliseconds: u64) -> Vec<LimitPolicy> {
    let of = |algorithm: Algorithm| single(&algorithm.letter().to_string(), algorithm, quota, window_milliseconds);
    algorithms(quota).into_iter().map(of).collect()
}

/// A server with these policies.
pub async fn server_with(engine: &Engine, policies: &[LimitPolicy], lines: &[&str]) -> (Process, Connection) {
    let process = Process::server(engine, lines).await;
    let connection = process.connect().await;
    load(&connection, &limit_library(policies)).await.unwrap();
    (process, connection)
}

/// What a deciding call answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allowed: i64,
    pub limit: i64,
    pub remaining: i64,
    pub reset: i64,
    pub retry: i64,
    pub name: String,
}

impl Answer {
    /// Reads a reply.
    pub fn read(reply: Value) -> Self {
        let (allowed, limit, remaining, reset, retry, name) = redis::from_redis_value(reply).unwrap();
        Self { allowed, limit, remaining, reset, retry, name }
    }

    /// `allowed` and `remaining`.
    pub fn verdict(&self) -> (i64, i64) {
        (self.allowed, self.remaining)
    }
}

/// Calls a function that answers with a decision.
pub async fn decide(connection: &Connection, function: &str, key: &str, arguments: &[&str]) -> Answer {
    let reply = call(connection, function, &[key], arguments).await;
    Answer::read(reply.unwrap_or_else(|error| panic!("{function} {key} {arguments:?}: {error:?}")))
}

/// Calls `redoubt_limit`.
pub async fn admit(connection: &Connection, key: &str, arguments: &[&str]) -> Answer {
    decide(connection, "limit", key, arguments).await
}

/// Calls `redoubt_limit_peek`.
pub async fn peek(connection: &Connection, key: &str, arguments: &[&str]) -> Answer {
    decide(connection, "limit_peek", key, arguments).await
}

/// The command of `redoubt_limit`.
pub fn limit_call(key: &str, arguments: &[&str]) -> Cmd {
    function_call("limit", &[key], arguments)
}

/// Allowed, denied and shadowed of a policy's limit; zeros if it was not used.
pub async fn counters(connection: &Connection, policy: &str, limit: &str) -> [i64; 3] {
    let row = rows(connection).await.into_iter().find(|row| row.owner == policy && row.part == limit);
    row.map_or([0; 3], |row| [0, 1, 2].map(|column| i64::try_from(row.counts[column]).unwrap()))
}

/// Every row of counters.
pub async fn rows(connection: &Connection) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = page(connection, UseKind::RateLimitPolicy, rows.len()).await.unwrap();
        if page.rows.is_empty() {
            return rows;
        }
        rows.extend(page.rows);
    }
}
