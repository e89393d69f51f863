
-- The functions of the library redoubt_sessions. What they share, and what a key is: sessions.lua, which this is put behind.

-- redoubt_session_create
--   keys:       1: the session
--   arguments:  USER [FIELD VALUE]...
--   result:     integer: when the session ends unless it is used. EXISTS if the id is taken; LIMIT if the store refuses more
--               sessions of the user
--   complexity: O(fields), and O(sessions of the user) when the user has as many as the store allows: at most 1000 of them, or
--               `maxPerUser` where that is more; those that end first are ended first where there are more
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
    failure = make_room(place, index, user, now) or note(index, place.name, expires)
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
  local seen = {}
  for _, name in ipairs(args) do
    local fault = fault_of_name(name, seen)
    if fault then return bad(fault) end
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
--               absolute lifetime, and not more often than the touch interval. TOOLARGE if plain commands made it larger than
--               the functions do
--   complexity: O(fields), at most 33000 of them
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
--   result:     integer: sessions that ended, all at once. TOOLARGE where the index has more entries than one call works off, 1000
--               or `maxPerUser` if that is more: those that end first have ended, and the call is to be made again
--   complexity: O(sessions of the user), at most that many
--   slot rule:  the sessions are derived from the index; flag `allow-oom`
local function revoke_all(keys, args)
  local place, failure = place_of(keys, INDEX, 1)
  if not place then return failure end
  if #args > 1 then return bad('takes [ID]') end
  local members, others = entries_of(place.key, place.policy)
  if not members then return others end
  local kept
  if args[1] then
    kept, failure = open({base = place.base, name = args[1], policy = place.policy}, now_milliseconds(), {})
    if failure then return failure end
  end
  local ids, absent = {}, {}
  for _, id in ipairs(members) do
    local created
    created, failure = created_of(place, place.name, id)
    if failure then return failure end
    if not created then
      absent[#absent + 1] = id
    elseif not kept or id ~= kept.id then
      ids[#ids + 1] = id
    end
  end
  strike(place.key, absent)
  local ended = remove(place, place.key, ids)
  count(place.policy, 'revoked', ended)
  if others > 0 then
    return too_large(whole(#members) .. ' entries of the index were worked off, ' .. whole(others) .. ' are left: call again')
  end
  return ended
end

-- redoubt_session_list
--   keys:       1: the index of a user
--   arguments:  none
--   result:     array of arrays, oldest first: bulk string id, integers created, expires; live sessions only. TOOLARGE where the
--               index has more than 1000 entries, or more than `maxPerUser` if that is more
--   complexity: O(sessions of the user), at most that many; writes nothing
--   slot rule:  the sessions are derived from the index; flag `no-writes`
local function list(keys, args)
  local place, failure = place_of(keys, INDEX, 1)
  if not place then return failure end
  if #args > 0 then return bad('takes no arguments') end
  local members, others = entries_of(place.key, place.policy)
  if not members then return others end
  if others > 0 then return too_large('the index has ' .. whole(#members + others) .. ' entries') end
  local now, live = now_milliseconds(), {}
  for _, id in ipairs(members) do
    local session
    session, failure = open({base = place.base, name = id, policy = place.policy}, now, {})
    if failure then return failure end
    if session and session.id == id and session.user == place.name then
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
--   arguments:  [FIRST]: number of the first row, from 0; none: 0
--   result:     array: an integer that is another one after each load of the library here, then at most 500 rows. A row is an array,
--               one for each store used since the load: bulk string store, integers created, read, renewed, revoked, rejected,
--               evicted, missed
--   complexity: O(500); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_counters(_, args) return counters_page(counters, args) end

-- redoubt_sessions_policies
--   keys:       none
--   arguments:  none
--   result:     array: PREFIX GENERATION..., the policies that are compiled in; generations are bulk strings
--   complexity: O(stores); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_policies()
  local all = {}
  for _, page in ipairs(PAGES) do
    for prefix, generation in string.gmatch(page, '\n([^\t\n]*)\t(%-?%d+)') do
      all[#all + 1] = prefix
      all[#all + 1] = generation
    end
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
