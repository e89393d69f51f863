//! A server whose limits have a clock of the test's: each call of a function with a key takes the time, in microseconds, as one
//! more argument, and keys end by that time (the hash `ends` says when). So 200,000 decisions of an hour take seconds, and are the same each time.

use std::time::Duration;

use redis::{Cmd, Value};
use redoubt::dataplane::{Library, limit_library, load};
use redoubt::model::limit_policy::LimitPolicy;
use redoubt::redis::Connection;

use super::engine_process::{Engine, Process};
use super::function_calls::{call, function_call};
use super::limit_calls::Answer;

/// Stands between the library and the server: `TIME` is the call's, a TTL is noted here. Ends are those of a server: by whole
/// milliseconds, a key's last one is still its. A write without a TTL is an error.
const CLOCK: &str = r"
local NOW = 0
local WRITES = {SET = true, RPUSH = true, LTRIM = true, UNLINK = true, PEXPIRE = true}
local function now_ms() return math.floor(NOW / 1000) end
local function end_at(key, ms) redis.call('HSET', 'ends', key, ms) end
local function clocked(command, key, ...)
  if command == 'TIME' then return {math.floor(NOW / 1000000), NOW % 1000000} end
  local ends = tonumber(redis.call('HGET', 'ends', key) or nil)
  local is_over = ends and now_ms() > ends
  if is_over and WRITES[command] then
    redis.call('UNLINK', key)
    redis.call('HDEL', 'ends', key)
    ends, is_over = nil, false
  end
  if command == 'SET' then
    local value, option, ms = ...
    if option == 'KEEPTTL' then
      if not ends then error({err = 'NOTTL there is none to keep'}) end
    elseif option == 'PX' and ms >= 1 then
      end_at(key, now_ms() + ms)
    else
      error({err = 'NOTTL'})
    end
    return redis.call('SET', key, value)
  elseif command == 'PEXPIRE' then
    end_at(key, now_ms() + (...))
    return 1
  elseif command == 'PTTL' then
    if is_over or redis.call('EXISTS', key) == 0 then return -2 end
    return ends and ends - now_ms() or -1
  end
  if is_over then return command ~= 'GET' and command ~= 'LINDEX' and 0 end
  local reply = redis.call(command, key, ...)
  if command == 'UNLINK' or (command == 'LTRIM' and redis.call('EXISTS', key) == 0) then redis.call('HDEL', 'ends', key) end
  return reply
end
local function register_clocked(description)
  local callback = description.callback
  description.callback = function(keys, args)
    if keys[1] then NOW = tonumber(table.remove(args)) end
    return callback(keys, args)
  end
  redis.register_function(description)
end
";

/// A moment to begin at, microseconds since 1970.
pub const BEGINNING: i64 = 1_795_000_000_000_000;

/// A server with these policies and no clock of its own.
pub async fn clocked_server(engine: &Engine, policies: &[LimitPolicy]) -> (Process, Connection) {
    let process = Process::server(engine, &[]).await;
    // Of thousands of calls in a row the last waits for all others, on a machine that may have other work.
    let connection = process.connect().await.with_response_timeout(Duration::from_mins(1));
    load_clocked(&connection, policies).await;
    (process, connection)
}

/// Loads policies, also over others.
pub async fn load_clocked(connection: &Connection, policies: &[LimitPolicy]) {
    let Library { name, source, digest } = limit_library(policies);
    let source = source
        .replace("redis.call(", "clocked(")
        .replace("redis.register_function{", "register_clocked{")
        .replacen('\n', CLOCK, 1);
    load(connection, &Library { name, source, digest }).await.unwrap();
}

/// The command of a function at a moment.
pub fn call_at(now: i64, function: &str, key: &str, arguments: &[&str]) -> Cmd {
    let mut command = function_call(function, &[key], arguments);
    command.arg(now);
    command
}

/// Calls a function that answers with a decision, at a moment.
pub async fn decide_at(connection: &Connection, now: i64, function: &str, key: &str, arguments: &[&str]) -> Answer {
    let mut all = arguments.to_vec();
    let now = now.to_string();
    all.push(&now);
    Answer::read(call(connection, function, &[key], &all).await.unwrap())
}

/// The answers of many calls, in their order.
pub async fn decide_all(connection: &Connection, commands: &[Cmd]) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(commands.len());
    for some in commands.chunks(500) {
        let replies = connection.query_all(some).await.unwrap();
        answers.extend(replies.into_iter().map(|reply: Result<Value, _>| Answer::read(reply.unwrap())));
    }
    answers
}
