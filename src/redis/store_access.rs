//! What the user of a store may do and must not: a fixed list, put to the live server with `ACL DRYRUN`.
//!
//! The rules are compared as text elsewhere ([`super::user_forms`]); this asks what they mean to the very server that holds
//! them, whatever its version makes of a category.

use ::redis::{Cmd, FromRedisValue as _, cmd};

use super::connection::Connection;
use super::error::Result;

/// `+`: must be allowed; `-`: must not. `@` is the store's prefix, `!` a key of nobody's.
pub const EXPECTATIONS: [&str; 55] = [
    "+PING",
    "+ROLE",
    "+INFO",
    "+TIME",
    "+CLIENT SETNAME x",
    "+WAIT 1 0",
    "+FCALL redoubt_sessions_digest 0",
    "+FCALL_RO redoubt_sessions_digest 0",
    "+GET @a",
    "+SET @a v",
    "+SETEX @a 1 v",
    "+SET @a v EX 1",
    "+DEL @a",
    "+UNLINK @a",
    "+EXISTS @a",
    "+EXPIRE @a 1",
    "+PEXPIREAT @a 1",
    "+TTL @a",
    "+HSET @a f v",
    "+HGETALL @a",
    "+HMGET @a f",
    "+HDEL @a f",
    "+ZADD @a 1 m",
    "+ZRANGE @a 0 -1",
    "+ZREM @a m",
    "+SADD @a m",
    "+SMEMBERS @a",
    "+RENAME @a @b",
    "+MULTI",
    "+EXEC",
    "+WATCH @a",
    "+PUBLISH @c m",
    "+SUBSCRIBE @c",
    "-GET !",
    "-SET ! v",
    "-DEL !",
    "-RENAME @a !",
    "-PUBLISH ! m",
    "-PSUBSCRIBE *",
    "-SCAN 0",
    "-KEYS *",
    "-RANDOMKEY",
    "-CLIENT TRACKING on BCAST",
    "-PUBSUB CHANNELS",
    "-SCRIPT FLUSH",
    "-DBSIZE",
    "-FLUSHALL",
    "-EVAL x 0",
    "-CONFIG GET x",
    "-ACL LIST",
    "-FUNCTION LOAD x",
    "-FUNCTION LIST",
    "-CLIENT KILL TYPE normal",
    "-DEBUG SLEEP 0",
    "-REPLICAOF NO ONE",
];
/// A key that belongs to no store: prefixes begin with a letter or digit.
const NOBODYS: &str = "-nobodys:a";

/// The commands that the server judges otherwise than it should, for this user with this prefix. Empty: proven.
pub async fn violations(connection: &Connection, user: &str, prefix: &str) -> Result<Vec<String>> {
    let question = |expectation: &&str| -> Cmd {
        let words = expectation[1..].split(' ').map(|word| word.replace('@', prefix).replace('!', NOBODYS));
        let mut question = cmd("ACL");
        question.arg("DRYRUN").arg(user).arg(words.collect::<Vec<_>>());
        question
    };
    let questions: Vec<Cmd> = EXPECTATIONS.iter().map(question).collect();
    let mut violations = Vec::new();
    for (expectation, reply) in EXPECTATIONS.iter().zip(connection.query_all(&questions).await?) {
        let answer =
            String::from_redis_value(reply?).map_err(|error| connection.bad_reply("ACL DRYRUN", error.to_string()))?;
        if (answer == "OK") != expectation.starts_with('+') {
            let verb = if answer == "OK" { "may" } else { "may not" };
            violations.push(format!("{verb} {}", expectation[1..].replace('@', prefix).replace('!', NOBODYS)));
        }
    }
    Ok(violations)
}

/// How many connections a user has on this server.
pub async fn connections_of(connection: &Connection, user: &str) -> Result<usize> {
    let clients: String = connection.query(cmd("CLIENT").arg("LIST")).await?;
    Ok(clients.lines().filter(|line| line.split(' ').any(|field| field.strip_prefix("user=") == Some(user))).count())
}
