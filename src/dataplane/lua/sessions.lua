-- redoubt_sessions: sessions, with the policies of all stores of the layer compiled in.
--
-- Keys. A session is the hash `PREFIX{TAG}s:ID`. The index of a user's sessions is the sorted set `PREFIX{TAG}u:USER` (member: ID,
-- score: expiry).
--
-- - PREFIX is the store's.
-- - TAG and ID have letters, digits and `-._~+/=` only and come from the application. TAG is the same for all sessions of a user, ID is
--   random (128 bits).
-- - USER is any bytes, at most 512. An empty USER has no index and no cap.
--
-- Only braces are TAG's, so all keys of a call are in one slot. Keys that a function derives from the one it was given share its prefix
-- and TAG: the index of a session, the sessions of an index, the session behind a rotated id.
--
-- Fields. Names that begin with `@` are the library's. A call takes at most 512 fields, a session holds at most 65536 bytes of
-- names and values. Every key has a TTL. Times are whole milliseconds since 1970 of the server's clock, read once per call.
--
-- Bounds. What a call reads is bounded, because plain commands may write under the same keys and a server does nothing else while
-- a function runs. Of an index it reads at most 1000 entries, or `maxPerUser` where that is more. Of a session it reads at most 4 MiB of
-- memory in 33000 fields, which is what 65536 bytes can come to. Above that the answer is TOOLARGE.
--
-- Errors, before anything is written:
--
-- - `BADARG`: arguments or a key of another form.
-- - `NOPOLICY`: no store has the key's prefix.
-- - `EXISTS`: the id is taken.
-- - `NOSESSION`: the session ended or never was.
-- - `CONFLICT`: it changed in the meantime.
-- - `LIMIT`: too many sessions of the user.
-- - `WRONGTYPE`: something else is under the key.
-- - `TOOLARGE`: a key holds more than is read.
--
-- After a write there is one error only: TOOLARGE of revoke_all, which ended a part.

-- Columns of a store's row of counters, behind its name.
local COLUMNS = {created = 2, read = 3, renewed = 4, revoked = 5, rejected = 6, evicted = 7, missed = 8}
local MAX_USER, MAX_FIELDS, MAX_BYTES = 512, 512, 65536
-- What is read at most: entries of an index, and fields and bytes of memory of a session.
local MAX_INDEX, MAX_HASH, MAX_MEMORY = 1000, 33000, 4194304
-- Rotations within one grace period that an old id is followed through.
local MAX_HOPS = 8
-- Arguments of one command: Lua's `unpack` fits about 8,000.
local BATCH = 1000
local SESSION = '^([^{}]*){([%w%-%._~+/=]+)}s:([%w%-%._~+/=]+)$'
local INDEX = '^([^{}]*){([%w%-%._~+/=]+)}u:(.+)$'

-- Rows of counters: in order, and by store.
local counters, counters_of, policies = {}, {}, {}

local function gone() return redis.error_reply('NOSESSION it ended or never was') end
local function taken() return redis.error_reply('EXISTS the session id is taken') end

local function now_milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A policy is text until it is first used.
local function policy_of(prefix)
  local policy = policies[prefix]
  if policy then return policy end
  local row = row_of(prefix)
  if not row then return nil end
  local generation, idle, absolute, touch, cap, on_exceed, store =
    string.match(row, '^(%-?%d+) (%d+) (%d+) (%d+) (%d*) (%a+) (.*)$')
  policy = {
    generation = generation, idle = tonumber(idle), absolute = tonumber(absolute), touch = tonumber(touch),
    cap = tonumber(cap), rejects = on_exceed == 'Reject', store = store,
  }
  policies[prefix] = policy
  return policy
end

local function count(policy, what, by)
  local row = counters_of[policy.store]
  if not row then
    row = {policy.store, 0, 0, 0, 0, 0, 0, 0}
    counters[#counters + 1], counters_of[policy.store] = row, row
  end
  local column = COLUMNS[what]
  row[column] = row[column] + (by or 1)
end

-- Where a key is: {key, base, id (of a session) or user (of an index), policy}; else nil and an error.
local function place_of(keys, form, wanted)
  if #keys ~= wanted then return nil, bad('takes ' .. wanted .. ' keys') end
  local key = keys[1]
  if #key > MAX_KEY then return nil, bad('a key has at most 1024 bytes') end
  local prefix, tag, name = string.match(key, form)
  if not prefix then return nil, bad('the key is not PREFIX{TAG}' .. (form == SESSION and 's:ID' or 'u:USER')) end
  local policy = policy_of(prefix)
  if not policy then return nil, redis.error_reply('NOPOLICY no session store has this prefix') end
  return {key = key, base = prefix .. '{' .. tag .. '}', name = name, policy = policy}
end

local function index_of(place, user) return place.base .. 'u:' .. user end

local function too_large(what) return redis.error_reply('TOOLARGE ' .. what) end
local function memory_of(key) return redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0 end

-- An error if a session is too large to be read, or is none.
local function fault_of_size(key)
  local fields = redis.pcall('HLEN', key)
  if is_error(fields) then return fields end
  if fields > MAX_HASH or (fields > 0 and memory_of(key) > MAX_MEMORY) then
    return too_large('the session holds more than 65536 bytes: plain commands wrote it')
  end
end

-- Reads the hash of a session: `meta` by name without `@`, `fields` as a flat list; only `names`, if given.
local function read_hash(key, names)
  local meta, fields = {}, {}
  local reply
  if names then
    -- One value is no larger than a server takes.
    local failure = #names > 1 and fault_of_size(key)
    if failure then return nil, nil, failure end
    reply = redis.pcall('HMGET', key, '@u', '@c', '@v', '@b', '@n', unpack(names))
    if is_error(reply) then return nil, nil, reply end
    meta = {u = reply[1], c = reply[2], v = reply[3], b = reply[4], n = reply[5]}
    for at, name in ipairs(names) do
      if reply[at + 5] then fields[#fields + 1] = name; fields[#fields + 1] = reply[at + 5] end
    end
    return meta, fields
  end
  local failure = fault_of_size(key)
  if failure then return nil, nil, failure end
  reply = redis.call('HGETALL', key)
  for at = 1, #reply, 2 do
    local name = reply[at]
    if string.byte(name) == 64 then
      meta[string.sub(name, 2)] = reply[at + 1]
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = reply[at + 1]
    end
  end
  return meta, fields
end

-- The live session behind a place, a rotated id followed; nil if there is none; nil and an error for another type.
local function open(place, now, names)
  local id = place.name
  for hop = 1, MAX_HOPS do
    local key = place.base .. 's:' .. id
    local meta, fields, failure = read_hash(key, names)
    if failure then return nil, failure end
    if meta.n then
      id = meta.n
    else
      local created, version = number(meta.c), number(meta.v)
      -- A policy may have become shorter since the session's TTL was set.
      if not (created and version and meta.u) or created + place.policy.absolute <= now then return nil end
      return {
        key = key, id = id, user = meta.u, created = created, version = version, bytes = number(meta.b) or 0,
        fields = fields, is_rotated = hop > 1,
      }
    end
  end
  return nil
end

-- Notes in a user's index that a session lives until `expires`. Answers an error if something else is under its key.
local function note(index, id, expires)
  local added = redis.pcall('ZADD', index, whole(expires), id)
  if is_error(added) then return added end
  if redis.call('PEXPIRETIME', index) < expires then redis.call('PEXPIREAT', index, whole(expires)) end
end

-- When the session ends if it is used now, and when it would without.
local function expiries(place, session, now)
  local policy = place.policy
  local wanted = math.min(now + policy.idle, session.created + policy.absolute)
  local expires = redis.call('PEXPIRETIME', session.key)
  local is_due = expires - now <= policy.idle - policy.touch or expires > wanted
  return is_due and wanted or expires, expires
end

-- Lets the session live on from now, if the touch interval has passed. Answers its expiry, or nil and an error.
local function renew(place, session, now)
  local wanted, expires = expiries(place, session, now)
  if wanted == expires then return expires end
  if session.user ~= '' then
    local failure = note(index_of(place, session.user), session.id, wanted)
    if failure then return nil, failure end
  end
  redis.call('PEXPIREAT', session.key, whole(wanted))
  count(place.policy, 'renewed')
  return wanted
end

-- Reads field names: a fault in words, or nil. `seen` gathers them; twice the same would make the size wrong.
local function fault_of_name(name, seen)
  if string.byte(name) == 64 then return 'field names that begin with @ are reserved' end
  if seen[name] then return 'a field is named twice' end
  seen[name] = true
end

-- Pairs of a name and a value in `args` from `first`, `pairs_wanted` of them: bytes, the flat list of pairs; or nil and an error.
local function pairs_of(args, first, pairs_wanted, seen)
  if pairs_wanted > MAX_FIELDS then return nil, bad('at most 512 fields in one call') end
  local bytes, flat = 0, {}
  for at = first, first + 2 * pairs_wanted - 1, 2 do
    local fault = fault_of_name(args[at], seen)
    if fault then return nil, bad(fault) end
    bytes = bytes + #args[at] + #args[at + 1]
    flat[#flat + 1] = args[at]
    flat[#flat + 1] = args[at + 1]
  end
  return bytes, flat
end

local function oversized() return bad('a session holds at most 65536 bytes of names and values') end

-- When a session was created, if it is there and USER's; nil, and an error for another type. An index may name one that plain
-- commands deleted, and whose id somebody else has got since.
local function created_of(place, user, id)
  local reply = redis.pcall('HMGET', place.base .. 's:' .. id, '@u', '@c')
  if is_error(reply) then return nil, reply end
  if reply[1] == user then return number(reply[2]) end
end

-- Takes ids out of an index, in batches.
local function strike(index, ids)
  for first = 1, #ids, BATCH do
    redis.call('ZREM', index, unpack(ids, first, math.min(first + BATCH - 1, #ids)))
  end
end

-- Ends sessions by id, in batches. Answers how many there were.
local function remove(place, index, ids)
  local ended = 0
  for first = 1, #ids, BATCH do
    local keys = {}
    for at = first, math.min(first + BATCH - 1, #ids) do keys[#keys + 1] = place.base .. 's:' .. ids[at] end
    ended = ended + redis.call('UNLINK', unpack(keys))
  end
  strike(index, ids)
  return ended
end

-- The entries of an index that end first, as many as are read, and how many are left out; nil and an error for another type. An
-- entry that is longer than a key may be is none of ours: they are read one by one where there may be such.
local function entries_of(index, policy)
  local held = redis.pcall('ZCARD', index)
  if is_error(held) then return nil, held end
  local most = math.max(MAX_INDEX, policy.cap or 0)
  local read = math.min(held, most)
  if held <= most and (held == 0 or memory_of(index) <= MAX_MEMORY + held * MAX_KEY) then
    return redis.call('ZRANGE', index, 0, -1), 0
  end
  local ids = {}
  for at = 0, read - 1 do
    local id = redis.call('ZRANGE', index, at, at)[1]
    if id and #id <= MAX_KEY then ids[#ids + 1] = id end
  end
  return ids, held - #ids
end

-- Makes room in a user's index for one more session. Answers an error if there is none, or if a key is of another type.
local function make_room(place, index, user, now)
  local ended = redis.pcall('ZCOUNT', index, '-inf', whole(now))
  if is_error(ended) then return ended end
  if ended > 0 then redis.call('ZREMRANGEBYRANK', index, 0, math.min(ended, BATCH) - 1) end
  local policy = place.policy
  if not policy.cap or redis.call('ZCARD', index) < policy.cap then return nil end
  local live, over, absent = {}, {}, {}
  local ids, others = entries_of(index, policy)
  for _, id in ipairs(ids) do
    local created, failure = created_of(place, user, id)
    if failure then return failure end
    if not created then
      absent[#absent + 1] = id
    elseif created + policy.absolute <= now then
      over[#over + 1] = id
    else
      live[#live + 1] = {id = id, created = created}
    end
  end
  local excess = #live + others - policy.cap + 1
  if excess > 0 and policy.rejects then
    count(policy, 'rejected')
    return redis.error_reply('LIMIT the user has as many sessions as the store allows')
  end
  table.sort(live, function(one, other)
    if one.created ~= other.created then return one.created < other.created end
    return one.id < other.id
  end)
  local oldest = {}
  for at = 1, math.min(excess, #live) do oldest[at] = live[at].id end
  strike(index, absent)
  remove(place, index, over)
  if excess > 0 then count(policy, 'evicted', remove(place, index, oldest)) end
end
