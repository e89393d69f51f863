//! Calls of the functions of any library, as an application makes them.

use redis::{Cmd, Value, cmd};
use redoubt::redis::{Connection, Error};

/// Functions without writes.
const READS: [&str; 16] = [
    "cache_get_ro",
    "cache_stats",
    "caches_counters",
    "caches_digest",
    "caches_policy",
    "caches_position",
    "session_get_ro",
    "session_exists",
    "session_list",
    "sessions_counters",
    "sessions_policies",
    "sessions_digest",
    "limit_peek",
    "limits_counters",
    "limits_policy",
    "limits_digest",
];

/// The command that calls `redoubt_<function>`: `FCALL_RO` for those without writes.
pub fn function_call(function: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
    let mut command = cmd(if READS.contains(&function) { "FCALL_RO" } else { "FCALL" });
    command.arg(format!("redoubt_{function}")).arg(keys.len()).arg(keys).arg(arguments);
    command
}

/// Calls `redoubt_<function>`.
pub async fn call(connection: &Connection, function: &str, keys: &[&str], arguments: &[&str]) -> Result<Value, Error> {
    connection.query(&function_call(function, keys, arguments)).await
}

/// An answer that is an integer.
pub async fn number(connection: &Connection, function: &str, keys: &[&str], arguments: &[&str]) -> i64 {
    match call(connection, function, keys, arguments).await {
        Ok(Value::Int(number)) => number,
        other => panic!("{function} {keys:?} {arguments:?}: {other:?}"),
    }
}

/// The code of an answer that is an error.
pub async fn refusal(connection: &Connection, function: &str, keys: &[&str], arguments: &[&str]) -> String {
    match call(connection, function, keys, arguments).await {
        Err(error) => error.server_text().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned(),
        Ok(answer) => panic!("{function} {keys:?} {arguments:?}: {answer:?}"),
    }
}

/// The server's clock, milliseconds since 1970.
pub async fn server_time(connection: &Connection) -> i64 {
    let (seconds, micros): (i64, i64) = connection.query(&cmd("TIME")).await.unwrap();
    seconds * 1000 + micros / 1000
}

/// Changes of the server's data since it began: values, and when keys end.
pub async fn changes(connection: &Connection) -> u64 {
    let text: String = connection.query(cmd("INFO").arg("persistence")).await.unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
    count.unwrap().trim().parse().unwrap()
}

/// Every key with what it holds.
pub async fn contents(connection: &Connection) -> Vec<(String, Option<Vec<u8>>)> {
    let mut keys: Vec<String> = connection.query(cmd("KEYS").arg("*")).await.unwrap();
    keys.sort();
    let mut all = Vec::new();
    for key in keys {
        let dump = connection.query(cmd("DUMP").arg(&key)).await.unwrap();
        all.push((key, dump));
    }
    all
}
