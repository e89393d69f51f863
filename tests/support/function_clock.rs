//! A server whose functions have a clock of the test's: each call with a key takes the time, in microseconds, as one more argument,
//! and keys end by that time (the hash `ends` says when). So 200,000 decisions of an hour take seconds, and are the same each time.

use std::time::Duration;

use redis::Cmd;
use redoubt::dataplane::{Library, load};
use redoubt::redis::Connection;

use super::engine_process::{Engine, Process};
use super::function_calls::function_call;

/// Stands between the library and the server: `TIME` is the call's, a TTL is noted here. Ends are those of a server: by whole
/// milliseconds, a key's last one is still its. A `SET` without a TTL is an error.
const CLOCK: &str = r"
local NOW = 0
local WRITES = {
  SET = true, GETEX = true, RPUSH = true, LTRIM = true, UNLINK = true, PEXPIRE = true, HSET = true,
}
local EMPTY = {GET = false, HGET = false, LINDEX = false, HMGET = {false, false}}
local function now_ms() return math.floor(NOW / 1000) end
local function end_at(key, ms) redis.call('HSET', 'ends', key, ms) end
local clocked
local function set(key, value, ends, ...)
  local options, at = {...}, 1
  local only_new, old, ms = false, nil, nil
  while options[at] do
    if options[at] == 'NX' then only_new = true
    elseif options[at] == 'GET' then old = redis.call('GET', key)
    elseif options[at] == 'PX' then at = at + 1; ms = options[at]
    elseif options[at] == 'KEEPTTL' then ms = ends and ends - now_ms()
    else error({err = 'NOTIME ' .. options[at]}) end
    at = at + 1
  end
  if only_new and redis.call('EXISTS', key) == 1 then return old end
  if not ms or ms < 1 then error({err = 'NOTTL'}) end
  end_at(key, now_ms() + ms)
  local done = redis.call('SET', key, value)
  if old ~= nil then return old end
  return done
end
function clocked(command, key, ...)
  if command == 'TIME' then return {math.floor(NOW / 1000000), NOW % 1000000} end
  if command == 'PUBLISH' then return 0 end
  if command == 'MGET' then
    local values = {}
    for at, each in ipairs({key, ...}) do values[at] = clocked('GET', each) end
    return values
  end
  if command == 'UNLINK' and ... then
    local removed = 0
    for _, each in ipairs({key, ...}) do removed = removed + clocked('UNLINK', each) end
    return removed
  end
  local ends = tonumber(redis.call('HGET', 'ends', key) or nil)
  local is_over = ends and now_ms() > ends
  if is_over and WRITES[command] then
    redis.call('UNLINK', key)
    redis.call('HDEL', 'ends', key)
    ends, is_over = nil, false
  end
  if command == 'SET' then
    local value = ...
    return set(key, value, ends, select(2, ...))
  elseif command == 'GETEX' then
    local _, ms = ...
    if redis.call('EXISTS', key) == 1 then end_at(key, now_ms() + ms) end
    return redis.call('GET', key)
  elseif command == 'PEXPIRE' then
    end_at(key, now_ms() + (...))
    return 1
  elseif command == 'PTTL' then
    if is_over or redis.call('EXISTS', key) == 0 then return -2 end
    return ends and ends - now_ms() or -1
  end
  if is_over then
    if EMPTY[command] ~= nil then return EMPTY[command] end
    return 0
  end
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

/// A server with this library and no clock of its own.
pub async fn clocked_server(engine: &Engine, library: Library) -> (Process, Connection) {
    let process = Process::server(engine, &[]).await;
    // Of thousands of calls in a row the last waits for all others, on a machine that may have other work.
    let connection = process.connect().await.with_response_timeout(Duration::from_mins(1));
    load_clocked(&connection, library).await;
    (process, connection)
}

/// Loads a library, also over another.
pub async fn load_clocked(connection: &Connection, library: Library) {
    let Library { name, source, digest } = library;
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
