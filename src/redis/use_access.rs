//! What the user of an application may do and must not, a use's ([`super::rights`]) and the layer's: fixed lists, put to the live server with
//! `ACL DRYRUN`.
//!
//! The rules are compared as text elsewhere ([`super::user_forms`]); this asks what they mean to the very server that holds
//! them, whatever its version makes of a category.

use ::redis::{Cmd, FromRedisValue as _, cmd};

use super::connection::Connection;
use super::error::Result;
use super::rights::Grant;

/// The layer's application user. `+`: must be allowed; `-`: must not.
pub const OF_THE_APPLICATION: &[&str] = &[
    "+GET key",
    "+SET key value",
    "+FCALL f 0",
    "+EVAL x 0",
    "+PUBLISH c m",
    "+PUBLISH _c m",
    "+PUBLISH __c m",
    "+SUBSCRIBE c",
    "+SUBSCRIBE __keyevent@0__:expired",
    "+PSUBSCRIBE *",
    "+PSUBSCRIBE __keyevent@*__:expired",
    "+PUBSUB CHANNELS",
    "+INFO",
    "+ROLE",
    "+MULTI",
    "+SCAN 0",
    "+WAIT 1 0",
    "+CLIENT SETNAME x",
    "+FUNCTION LIST",
    "+XADD s * f v",
    "-PUBLISH __sentinel__:hello m",
    "-SPUBLISH __sentinel__:hello m",
    "-PUBLISH __keyevent@0__:expired m",
    "-PUBLISH __keyspace@0__:key m",
    "+ZADD z 1 m",
    "+SUNION a b",
    "+GEOSEARCH g FROMMEMBER m BYRADIUS 1 m",
    "-COPY a b",
    "-SUNIONSTORE a b",
    "-SINTERSTORE a b",
    "-SDIFFSTORE a b",
    "-ZUNIONSTORE a 1 b",
    "-ZINTERSTORE a 1 b",
    "-ZDIFFSTORE a 1 b",
    "-ZRANGESTORE a b 0 1",
    "-GEOSEARCHSTORE a b FROMMEMBER m BYRADIUS 1 m",
    "-GEORADIUS a 0 0 1 m STORE b",
    "-SORT a STORE b",
    "-RESTORE a 0 x",
    "-FLUSHALL",
    "-FLUSHDB",
    "-KEYS *",
    "-CONFIG GET x",
    "-CONFIG SET maxmemory 0",
    "-ACL LIST",
    "-ACL SETUSER x",
    "-SHUTDOWN",
    "-DEBUG SLEEP 0",
    "-REPLICAOF NO ONE",
    "-FUNCTION LOAD x",
    "-FUNCTION FLUSH",
    "-FUNCTION DELETE redoubt",
    "-FUNCTION KILL",
    "-SCRIPT DEBUG SYNC",
    "-CLIENT KILL TYPE normal",
    "-CLIENT PAUSE 1",
    "-CLIENT NO-EVICT on",
    "-MONITOR",
    "-SAVE",
    "-BGSAVE",
    "-SWAPDB 0 1",
    "-PSYNC ? -1",
    "-MODULE LIST",
    "-CLUSTER RESET",
    "-SLOWLOG RESET",
    "-LATENCY RESET",
];
/// A key that belongs to no use: prefixes begin with a letter or digit.
const KEY_OUTSIDE_EVERY_PREFIX: &str = "-nobodys:a";

/// The commands that the server judges otherwise than it should, for this user of a use. Empty: proven.
pub async fn violations(connection: &Connection, user: &str, grant: Grant<'_>) -> Result<Vec<String>> {
    let expectations = grant.expectations().map(|expectation| substitute(&expectation, grant.prefix));
    differing(connection, user, expectations).await
}

/// An expectation with a use's own prefix in it. Only its first character says `+` or `-`; `@` in a channel of the server's is
/// no prefix.
fn substitute(expectation: &str, prefix: &str) -> String {
    let (sign, words) = expectation.split_at(1);
    let word = |word: &str| match word.strip_prefix('@') {
        Some(rest) => format!("{prefix}{rest}"),
        None => word.replace('!', KEY_OUTSIDE_EVERY_PREFIX),
    };
    format!("{sign}{}", words.split(' ').map(word).collect::<Vec<_>>().join(" "))
}

/// Those of `expectations` (`+` or `-`, then the words of a command) that the server judges otherwise, as `may …` or `may not …`.
pub async fn differing(
    connection: &Connection,
    user: &str,
    expectations: impl IntoIterator<Item = String>,
) -> Result<Vec<String>> {
    let expectations: Vec<String> = expectations.into_iter().collect();
    let question = |expectation: &String| -> Cmd {
        let mut question = cmd("ACL");
        question.arg("DRYRUN").arg(user).arg(expectation[1..].split(' ').collect::<Vec<_>>());
        question
    };
    let questions: Vec<Cmd> = expectations.iter().map(question).collect();
    let mut violations = Vec::new();
    for (expectation, reply) in expectations.iter().zip(connection.query_all(&questions).await?) {
        let answer =
            String::from_redis_value(reply?).map_err(|error| connection.bad_reply("ACL DRYRUN", error.to_string()))?;
        if (answer == "OK") != expectation.starts_with('+') {
            let verb = if answer == "OK" { "may" } else { "may not" };
            violations.push(format!("{verb} {}", &expectation[1..]));
        }
    }
    Ok(violations)
}

/// How many connections a user has on this server.
pub async fn connections_of(connection: &Connection, user: &str) -> Result<usize> {
    let clients = connection.text(cmd("CLIENT").arg("LIST")).await?;
    Ok(clients.lines().filter(|line| line.split(' ').any(|field| field.strip_prefix("user=") == Some(user))).count())
}
