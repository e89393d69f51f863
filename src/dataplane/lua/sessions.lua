#!lua name=redoubt_sessions

-- redoubt_sessions: sessions, with the policies of all stores of the layer compiled in.
--
-- Keys. A session is the hash `PREFIX{TAG}s:ID`, the index of a user's sessions the sorted set `PREFIX{TAG}u:USER` (member: ID,
-- score: expiry). PREFIX is the store's. TAG and ID have letters, digits and `-._~+/=` only and come from the application: TAG
-- is the same for all sessions of a user, ID is random (128 bits). USER is any bytes, at most 512; the empty one is nobody: no
-- index, no cap. Only braces are TAG's, so all keys of a call are in one slot; keys that a function derives from the one it
-- was given (the index of a session, the sessions of an index, the session behind a rotated id) share its prefix and TAG.
--
-- Fields. Names that begin with `@` are the library's. A call takes at most 512 fields, a session holds at most 65536 bytes of
-- names and values. Every key has a TTL. Times are whole milliseconds since 1970 of the server's clock, read once per call.
--
-- Errors, before anything is written: `BADARG` arguments or a key of another form, `NOPOLICY` no store has the key's prefix,
-- `EXISTS` the id is taken, `NOSESSION` ended or never was, `CONFLICT` changed in the meantime, `LIMIT` too many sessions of
-- the user, `WRONGTYPE` something else is under the key.

local DIGEST = '@DIGEST@'
local POLICIES = {
@POLICIES@
}
local COUNTERS = {'created', 'read', 'renewed', 'revoked', 'rejected', 'evicted', 'missed'}
local MAX_KEY, MAX_USER, MAX_FIELDS, MAX_BYTES = 1024, 512, 512, 65536
-- Rotations within one grace period that an old id is followed through.
local MAX_HOPS = 8
-- Arguments of one command: Lua's `unpack` fits about 8,000.
local BATCH = 1000
local SESSION = '^([^{}]*){([%w%-%._~+/=]+)}s:([%w%-%._~+/=]+)$'
local INDEX = '^([^{}]*){([%w%-%._~+/=]+)}u:(.+)$'

local counters = {}

local function bad(what) return redis.error_reply('BADARG ' .. what) end
local function gone() return redis.error_reply('NOSESSION it ended or never was') end
local function taken() return redis.error_reply('EXISTS the session id is taken') end
local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

-- Lua's own conversion rounds at 14 digits.
local function whole(number) return string.format('%.0f', number) end

-- Only what this library writes is a number: `tonumber` would also take `nan` and `0x10`.
local function number(text)
  if text and #text < 16 and string.find(text, '^%d+$') then return tonumber(text) end
end

local function now_milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A policy is text until it is first used: 10,000 of them must load in less than 500 ms.
local function policy_of(prefix)
  local policy = POLICIES[prefix]
  if type(policy) == 'string' then
    local generation, idle, absolute, touch, cap, on_exceed, store =
      string.match(policy, '^(%-?%d+) (%d+) (%d+) (%d+) (%d*) (%a+) (.*)$')
    policy = {
      generation = generation, idle = tonumber(idle), absolute = tonumber(absolute), touch = tonumber(touch),
      cap = tonumber(cap), rejects = on_exceed == 'Reject', store = store,
    }
    POLICIES[prefix] = policy
  end
  return policy
end

local function count(policy, what, by)
  local of_store = counters[policy.store]
  if not of_store then
    of_store = {}
    for _, name in ipairs(COUNTERS) do of_store[name] = 0 end
    counters[policy.store] = of_store
  end
  of_store[what] = of_store[what] + (by or 1)
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

-- Reads the hash of a session: `meta` by name without `@`, `fields` as a flat list; only `names`, if given.
local function read_hash(key, names)
  local meta, fields = {}, {}
  local reply
  if names then
    reply = redis.pcall('HMGET', key, '@u', '@c', '@v', '@b', '@n', unpack(names))
    if is_error(reply) then return nil, nil, reply end
    meta = {u = reply[1], c = reply[2], v = reply[3], b = reply[4], n = reply[5]}
    for at, name in ipairs(names) do
      if reply[at + 5] then fields[#fields + 1] = name; fields[#fields + 1] = reply[at + 5] end
    end
    return meta, fields
  end
  reply = redis.pcall('HGETALL', key)
  if is_error(reply) then return nil, nil, reply end
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

-- Ends sessions by id, in batches. Answers how many there were.
local function remove(place, index, ids)
  local ended = 0
  for first = 1, #ids, BATCH do
    local keys, members = {}, {}
    for at = first, math.min(first + BATCH - 1, #ids) do
      keys[#keys + 1] = place.base .. 's:' .. ids[at]
      members[#members + 1] = ids[at]
    end
    ended = ended + redis.call('UNLINK', unpack(keys))
    redis.call('ZREM', index, unpack(members))
  end
  return ended
end

-- Makes room in a user's index for one more session. Answers an error if there is none, or if a key is of another type.
local function make_room(place, index, now)
  local trimmed = redis.pcall('ZREMRANGEBYSCORE', index, '-inf', whole(now))
  if is_error(trimmed) then return trimmed end
  local policy = place.policy
  if not policy.cap or redis.call('ZCARD', index) < policy.cap then return nil end
  -- Sessions that plain commands deleted are still in the index.
  local live, dead = {}, {}
  for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local created = redis.pcall('HGET', place.base .. 's:' .. id, '@c')
    if is_error(created) then return created end
    created = number(created)
    if created and created + policy.absolute > now then
      live[#live + 1] = {id = id, created = created}
    else
      dead[#dead + 1] = id
    end
  end
  local excess = #live - policy.cap + 1
  if excess > 0 and policy.rejects then
    count(policy, 'rejected')
    return redis.error_reply('LIMIT the user has as many sessions as the store allows')
  end
  table.sort(live, function(one, other)
    if one.created ~= other.created then return one.created < other.created end
    return one.id < other.id
  end)
  local oldest = {}
  for at = 1, excess do oldest[at] = live[at].id end
  remove(place, index, dead)
  if excess > 0 then count(policy, 'evicted', remove(place, index, oldest)) end
end

-- redoubt_session_create
--   keys:       1: the session
--   arguments:  USER [FIELD VALUE]...
--   result:     integer: when the session ends unless it is used. EXISTS if the id is taken; LIMIT if the store refuses more
--               sessions of the user
--   complexity: O(fields), and O(sessions of the user) when the user has as many as the store allows
--   slot rule:  the index of USER is derived; flags none: refused when memory is full
local function create(keys, args)
  local place, failure = place_of(keys, SESSION, 1)
  if not place then return failure end
  if #args % 2 == 0 then return bad('takes USER [FIELD VALUE]...') end
  local user, policy = args[1], place.policy
  if #user > MAX_USER then return bad('a user has at most 512 bytes') end
  local bytes, flat = pairs_of(args, 2, (#args - 1) / 2, {})
  if not bytes then return flat end
  if bytes > MAX_BYTES then return oversized() end
  local held = redis.pcall('HLEN', place.key)
  if is_error(held) then return held end
  if held > 0 then return taken() end
  local now = now_milliseconds()
  local expires = now + math.min(policy.idle, policy.absolute)
  if user ~= '' then
    local index = index_of(place, user)
    failure = make_room(place, index, now) or note(index, place.name, expires)
    if failure then return failure end
  end
  redis.call('HSET', place.key, '@u', user, '@c', whole(now), '@v', '1', '@b', whole(bytes), unpack(flat))
  redis.call('PEXPIREAT', place.key, whole(expires))
  count(policy, 'created')
  return expires
end

local function get_with(expiry_of, keys, args)
  local place, failure = place_of(keys, SESSION, 1)
  if not place then return failure end
  if #args > MAX_FIELDS then return bad('at most 512 fields in one call') end
  for _, name in ipairs(args) do
    if string.byte(name) == 64 then return bad('field names that begin with @ are reserved') end
  end
  local now = now_milliseconds()
  local session
  session, failure = open(place, now, #args > 0 and args or nil)
  if failure then return failure end
  if not session then
    count(place.policy, 'missed')
    return false
  end
  local expires
  expires, failure = expiry_of(place, session, now)
  if failure then return failure end
  count(place.policy, 'read')
  return {session.version, session.created, expires, session.user, session.fields}
end

-- Expiry as it is, held to a policy that has become shorter.
local function expiry_unchanged(place, session, now)
  local wanted, expires = expiries(place, session, now)
  return expires < 0 and wanted or math.min(expires, session.created + place.policy.absolute)
end

-- redoubt_session_get
--   keys:       1: the session
--   arguments:  [FIELD]...; none: all fields
--   result:     array: integers version, created, expires; bulk string user; array of FIELD VALUE... without absent ones.
--               Null if there is no such session. Renews: the session lives for the idle timeout from now, but not beyond its
--               absolute lifetime, and not more often than the touch interval
--   complexity: O(fields)
--   slot rule:  the index of the session's user is derived, and the session behind a rotated id; flag `allow-oom`: reads and
--               renews when memory is full
local function get(keys, args) return get_with(renew, keys, args) end

-- redoubt_session_get_ro
--   keys:       1: the session
--   arguments:  [FIELD]...; none: all fields
--   result:     as redoubt_session_get, without renewing
--   complexity: O(fields); writes nothing
--   slot rule:  the session behind a rotated id is derived; flag `no-writes`: by FCALL_RO on replicas and on servers that
--               refuse writes
local function get_ro(keys, args) return get_with(expiry_unchanged, keys, args) end

local function left_with(expiry_of, keys, args)
  if #args > 0 then return bad('takes no arguments') end
  local session = get_with(expiry_of, keys, {'-'})
  if not session then return 0 end
  if is_error(session) then return session end
  return session[3]
end

-- redoubt_session_touch
--   keys:       1: the session
--   arguments:  none
--   result:     integer: when the session ends, 0 if there is none. Renews as redoubt_session_get
--   complexity: O(1)
--   slot rule:  as redoubt_session_get; flag `allow-oom`
local function touch(keys, args) return left_with(renew, keys, args) end

-- redoubt_session_exists
--   keys:       1: the session
--   arguments:  none
--   result:     integer: when the session ends, 0 if there is none
--   complexity: O(1); writes nothing
--   slot rule:  as redoubt_session_get_ro; flag `no-writes`
local function exists(keys, args) return left_with(expiry_unchanged, keys, args) end

-- redoubt_session_set
--   keys:       1: the session
--   arguments:  VERSION COUNT [FIELD VALUE]... (COUNT times) [FIELD-TO-DELETE]...; VERSION is empty: any
--   result:     integer: the new version. NOSESSION if there is none: a save never brings back a session; CONFLICT if its
--               version is not VERSION. Renews as redoubt_session_get
--   complexity: O(fields named)
--   slot rule:  as redoubt_session_get; flags none: refused when memory is full
local function set(keys, args)
  local place, failure = place_of(keys, SESSION, 1)
  if not place then return failure end
  local version, wanted = args[1], number(args[2])
  if not wanted or (version ~= '' and not number(version)) or #args < 2 + 2 * wanted then
    return bad('takes VERSION COUNT [FIELD VALUE]... [FIELD-TO-DELETE]...')
  end
  local seen, names, deleted = {}, {}, {}
  local bytes, flat = pairs_of(args, 3, wanted, seen)
  if not bytes then return flat end
  if #args - 2 - wanted > MAX_FIELDS then return bad('at most 512 fields in one call') end
  for at = 3 + 2 * wanted, #args do
    local fault = fault_of_name(args[at], seen)
    if fault then return bad(fault) end
    deleted[#deleted + 1] = args[at]
    names[#names + 1] = args[at]
  end
  for at = 1, #flat, 2 do names[#names + 1] = flat[at] end
  local now = now_milliseconds()
  local session
  session, failure = open(place, now, names)
  if failure then return failure end
  if not session then
    count(place.policy, 'missed')
    return gone()
  end
  if version ~= '' and number(version) ~= session.version then
    return redis.error_reply('CONFLICT the session has version ' .. whole(session.version))
  end
  for at = 1, #session.fields, 2 do bytes = bytes - #session.fields[at] - #session.fields[at + 1] end
  bytes = math.max(0, session.bytes + bytes)
  if bytes > MAX_BYTES and bytes > session.bytes then return oversized() end
  local _, failed = renew(place, session, now)
  if failed then return failed end
  if #deleted > 0 then redis.call('HDEL', session.key, unpack(deleted)) end
  redis.call('HSET', session.key, '@v', whole(session.version + 1), '@b', whole(bytes), unpack(flat))
  return session.version + 1
end

-- redoubt_session_revoke
--   keys:       1: the session
--   arguments:  none
--   result:     integer: 1 if a session ended, 0 if there was none. By a rotated id too, within its grace period
--   complexity: O(1)
--   slot rule:  as redoubt_session_get; flag `allow-oom`
local function revoke(keys, args)
  local place, failure = place_of(keys, SESSION, 1)
  if not place then return failure end
  if #args > 0 then return bad('takes no arguments') end
  local session
  session, failure = open(place, now_milliseconds(), {})
  if failure then return failure end
  -- What no session is any more must not be left either: a longer policy would let it live again.
  redis.call('UNLINK', place.key)
  if not session then return 0 end
  redis.call('UNLINK', session.key)
  if session.user ~= '' then
    local removed = redis.pcall('ZREM', index_of(place, session.user), session.id)
    if is_error(removed) then removed = nil end -- something else is under the index: the session must end all the same
  end
  count(place.policy, 'revoked')
  return 1
end

-- redoubt_session_revoke_all
--   keys:       1: the index of a user
--   arguments:  [ID]: of a session to keep
--   result:     integer: sessions that ended, all at once
--   complexity: O(sessions of the user)
--   slot rule:  the sessions are derived from the index; flag `allow-oom`
local function revoke_all(keys, args)
  local place, failure = place_of(keys, INDEX, 1)
  if not place then return failure end
  if #args > 1 then return bad('takes [ID]') end
  local members = redis.pcall('ZRANGE', place.key, 0, -1)
  if is_error(members) then return members end
  local kept
  if args[1] then
    kept, failure = open({base = place.base, name = args[1], policy = place.policy}, now_milliseconds(), {})
    if failure then return failure end
  end
  local ids = {}
  for _, id in ipairs(members) do
    if not kept or id ~= kept.id then ids[#ids + 1] = id end
  end
  local ended = remove(place, place.key, ids)
  count(place.policy, 'revoked', ended)
  return ended
end

-- redoubt_session_list
--   keys:       1: the index of a user
--   arguments:  none
--   result:     array of arrays, oldest first: bulk string id, integers created, expires; live sessions only
--   complexity: O(sessions of the user); writes nothing
--   slot rule:  the sessions are derived from the index; flag `no-writes`
local function list(keys, args)
  local place, failure = place_of(keys, INDEX, 1)
  if not place then return failure end
  if #args > 0 then return bad('takes no arguments') end
  local members = redis.pcall('ZRANGE', place.key, 0, -1)
  if is_error(members) then return members end
  local now, live = now_milliseconds(), {}
  for _, id in ipairs(members) do
    local session
    session, failure = open({base = place.base, name = id, policy = place.policy}, now, {})
    if failure then return failure end
    if session and session.id == id then
      live[#live + 1] = {id, session.created, expiry_unchanged(place, session, now)}
    end
  end
  table.sort(live, function(one, other)
    if one[2] ~= other[2] then return one[2] < other[2] end
    return one[1] < other[1]
  end)
  return live
end

-- redoubt_session_rotate
--   keys:       2: the session, and the key that it gets; same prefix and TAG
--   arguments:  GRACE: milliseconds for which the old id still works, at most the idle timeout; 0 at a login
--   result:     integer: when the session ends. NOSESSION if there is none; EXISTS if the new id is taken; CONFLICT if the old
--               one was rotated already. The session keeps its fields, its creation and its place in the index; in its grace
--               period the old id is another name of it: what is read, saved or revoked by it is the one session
--   complexity: O(1)
--   slot rule:  as redoubt_session_get; flags none: refused when memory is full
local function rotate(keys, args)
  local old, failure = place_of(keys, SESSION, 2)
  if not old then return failure end
  local new
  new, failure = place_of({keys[2]}, SESSION, 1)
  if not new then return failure end
  local grace = number(args[1])
  if old.base ~= new.base then return bad('both keys must have the same prefix and TAG') end
  if #args ~= 1 or not grace or grace > old.policy.idle then return bad('takes GRACE, at most the idle timeout') end
  local now = now_milliseconds()
  local session
  session, failure = open(old, now, {})
  if failure then return failure end
  if not session then
    count(old.policy, 'missed')
    return gone()
  end
  if session.is_rotated then return redis.error_reply('CONFLICT the session was rotated already') end
  local held = redis.pcall('HLEN', new.key)
  if is_error(held) then return held end
  if held > 0 then return taken() end
  local expires = expiries(old, session, now)
  if session.user ~= '' then
    local index = index_of(old, session.user)
    failure = note(index, new.name, expires)
    if failure then return failure end
    redis.call('ZREM', index, old.name)
  end
  redis.call('RENAME', old.key, new.key)
  redis.call('PEXPIREAT', new.key, whole(expires))
  if grace > 0 then
    redis.call('HSET', old.key, '@n', new.name)
    redis.call('PEXPIREAT', old.key, whole(now + grace))
  end
  return expires
end

-- redoubt_sessions_counters
--   keys:       none
--   arguments:  none
--   result:     array of arrays, one for each store used since the library was loaded here: bulk string store, integers
--               created, read, renewed, revoked, rejected, evicted, missed
--   complexity: O(stores); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_counters()
  local all = {}
  for store, of_store in pairs(counters) do
    local row = {store}
    for at, name in ipairs(COUNTERS) do row[at + 1] = of_store[name] end
    all[#all + 1] = row
  end
  return all
end

-- redoubt_sessions_policies
--   keys:       none
--   arguments:  none
--   result:     array: PREFIX GENERATION..., the policies that are compiled in; generations are bulk strings
--   complexity: O(stores); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_policies()
  local all = {}
  for prefix, policy in pairs(POLICIES) do
    all[#all + 1] = prefix
    all[#all + 1] = type(policy) == 'string' and string.match(policy, '^%S+') or policy.generation
  end
  return all
end

-- redoubt_sessions_digest
--   keys:       none
--   arguments:  none
--   result:     bulk string: the digest of this library's source
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_digest() return DIGEST end

local function register(name, callback, flags, description)
  redis.register_function{function_name = name, callback = callback, flags = flags, description = description}
end

register('redoubt_session_create', create, {}, 'begins a session')
register('redoubt_session_get', get, {'allow-oom'}, 'reads a session and renews it')
register('redoubt_session_get_ro', get_ro, {'no-writes'}, 'reads a session')
register('redoubt_session_touch', touch, {'allow-oom'}, 'renews a session')
register('redoubt_session_exists', exists, {'no-writes'}, 'says when a session ends')
register('redoubt_session_set', set, {}, 'changes fields of a session')
register('redoubt_session_revoke', revoke, {'allow-oom'}, 'ends a session')
register('redoubt_session_revoke_all', revoke_all, {'allow-oom'}, 'ends all sessions of a user')
register('redoubt_session_list', list, {'no-writes'}, 'lists the sessions of a user')
register('redoubt_session_rotate', rotate, {}, 'gives a session another id')
register('redoubt_sessions_counters', read_counters, {'no-writes', 'allow-stale'}, 'counters of the stores')
register('redoubt_sessions_policies', read_policies, {'no-writes', 'allow-stale'}, 'policies that are compiled in')
register('redoubt_sessions_digest', read_digest, {'no-writes', 'allow-stale'}, 'digest of the library redoubt_sessions')
