-- The functions of the library redoubt_caches. What an entry, a lease, a tag and a reply are: caches.lua, which this is put behind.

local JOBS, MOST_JOBS, JOBS_MS, MOST_REMOVED = '{@jobs}', 100, 604800000, 128

-- The one key of a call.
local function only(keys)
  if not keys[1] or keys[2] then refuse_argument('takes one key') end
  return keys[1]
end

local function ttl_of(policy, text)
  if not text or text == '' then return policy.ttl end
  local ttl = number(text)
  if not ttl or ttl < 1 then refuse_argument('TTL_MS is a whole number of milliseconds from 1, of at most 15 digits') end
  return math.min(ttl, policy.most)
end

local function check_tags(args, first)
  if #args - first >= MOST_TAGS then refuse_argument('at most 64 tags') end
  for at = first, #args do
    if args[at] == '' or #args[at] > LONGEST_TAG or string.find(args[at], '%c') then
      refuse_argument('a tag has 1 to 128 bytes, none of them a control character')
    end
  end
end

local function check_value(policy, value)
  if #value > policy.bytes then refuse('TOOBIG the value is larger than the namespace allows') end
end

-- What get answers of an entry that is there; nil if it is as if it were not.
local function answer_present(policy, key, close, head, value, leases)
  local kind, stale, slowness, _, tags = read_head(head)
  if kind == TOMBSTONE or (tags > 0 and not tags_hold(head, key, close, tags)) then return nil end
  local left = redis.call('PTTL', key)
  if left < 0 then -- a plain command took its end away: it would be stale without one
    if leases then redis.call('UNLINK', key) end
    return nil
  end
  left = left - stale
  local is_negative = kind == NEGATIVE
  if is_negative then value = false end
  if left > 0 then
    local reach = slowness * policy.early
    count(policy, is_negative and KNOWN_ABSENT or HITS)
    -- XFetch: the nearer the end, and the slower the computation, the likelier.
    if leases and left < REACH * reach and -reach * math.log(math.random()) >= left then
      local token = take(policy, key, close)
      if token then
        count(policy, EARLY)
        return {is_negative and 5 or 3, value, token, policy.lease}
      end
    end
    return {is_negative and 4 or 1, value}
  end
  if stale == 0 then return nil end
  count(policy, STALE)
  if not leases then return {2, value, '', 0} end
  local token, _, wait = take(policy, key, close)
  if token then return {3, value, token, policy.lease} end
  return {2, value, '', wait}
end

local function answer(keys, args, leases, is_whole)
  local key = only(keys)
  local policy, close = entry_of(key)
  if args[1] then refuse_argument('takes no arguments') end
  local head, value
  if is_whole then
    local fields = redis.call('HMGET', key, 'h', 'v')
    head, value = fields[2] and fields[1], fields[2]
  else
    head, value = redis.call('HGET', key, 'h'), false
  end
  local present = head and answer_present(policy, key, close, head, value, leases)
  if present then return present end
  if not leases then
    count(policy, MISSES)
    return {0, false, '', 0}
  end
  local token, holder, wait = take(policy, key, close)
  if token then
    count(policy, MISSES)
    return {0, false, token, policy.lease}
  end
  count(policy, holder == DOWN and FAILED or WAITS)
  return {holder == DOWN and -2 or -1, false, '', wait}
end

-- Stores an entry if its lease is still there and nothing that it was computed from was invalidated; 1, or 0 if not. `token` is
-- empty without a lease, `version` nil: the one that is there stays, so that no older one comes back.
local function store(policy, key, close, kind, token, version, value, ttl, args, first)
  local head = redis.call('HGET', key, 'h')
  local held = 0
  if head then
    local _
    _, _, _, held = read_head(head)
  end
  if version and held >= version then count(policy, REFUSED) return 0 end
  local lease, began, now, tags = lease_of(key, close), nil, nil, ''
  if token ~= '' then
    began = began_of(token)
    if not began or redis.call('GET', lease) ~= token then count(policy, REFUSED) return 0 end
  end
  if began or args[first] then
    now = clock()
    tags = pack_tags(policy, key, close, now, token, began, args, first)
    if not tags or (began and began <= policy.emptied) then
      redis.call('UNLINK', lease)
      count(policy, REFUSED)
      return 0
    end
  end
  ttl = math.ceil(ttl - ttl * policy.jitter * math.random())
  local stale = kind == VALUE and policy.stale or 0
  local slowness = began and math.min(math.ceil((now - began) / 1000), math.floor(ttl / LARGEST_SHARE)) or 0
  local tag_count = math.max(0, #args - first + 1)
  redis.call('HSET', key, 'h', struct.pack(HEAD, kind, stale, slowness, version or held, tag_count) .. tags, 'v', value)
  redis.call('PEXPIRE', key, ttl + stale)
  redis.call('UNLINK', lease)
  count(policy, SETS)
  return 1
end

-- redoubt_cache_get
--   keys:       1: the entry
--   arguments:  none
--   result:     array: what to do, the value, and where the entry is not simply fresh the token and milliseconds: see above
--   complexity: O(tags), and of the value's length
--   slot rule:  the lease and the generations of the tags are derived; flag `allow-oom`: reads and gives leases when memory is full
local function get(keys, args) return answer(keys, args, true, true) end

-- redoubt_cache_get_ro
--   keys:       1: the entry
--   arguments:  none
--   result:     as redoubt_cache_get, without a lease: 1, 4, 2 with 0 ms, or 0 with an empty token and 0 ms
--   complexity: as redoubt_cache_get; writes nothing
--   slot rule:  as redoubt_cache_get; flag `no-writes`: by FCALL_RO on replicas, as far as they have got, and on servers that
--               refuse writes
local function get_read_only(keys, args) return answer(keys, args, false, true) end

-- redoubt_cache_check
--   keys:       1: the entry
--   arguments:  none
--   result:     as redoubt_cache_get, with null for the value. `HGET KEY v` reads it, behind the call and in the same pipeline: it
--               brings what was valid at the call, or was set since. Cheaper than redoubt_cache_get above some 4 KB
--   complexity: O(tags)
--   slot rule:  as redoubt_cache_get; flag `allow-oom`
local function check(keys, args) return answer(keys, args, true, false) end

-- redoubt_cache_set
--   keys:       1: the entry
--   arguments:  TOKEN VALUE [TTL_MS [TAG]...]; TOKEN is empty: whatever the lease, which ends; TTL_MS is empty: the namespace's
--   result:     integer: 1 stored; 0 the lease has ended, or an invalidation or another set overtook it
--   complexity: O(tags), and of the value's length
--   slot rule:  as redoubt_cache_get; flags none: refused when memory is full
local function set(keys, args)
  local key = only(keys)
  local policy, close = entry_of(key)
  if not args[2] then refuse_argument('takes TOKEN VALUE [TTL_MS [TAG]...]') end
  check_value(policy, args[2])
  local ttl = ttl_of(policy, args[3])
  check_tags(args, 4)
  return store(policy, key, close, VALUE, args[1], nil, args[2], ttl, args, 4)
end

-- redoubt_cache_set_if_version
--   keys:       1: the entry
--   arguments:  VERSION VALUE [TTL_MS [TAG]...]
--   result:     integer: 1 stored, and the lease has ended; 0 what is stored, or was until it was invalidated, is not older
--   complexity: as redoubt_cache_set
--   slot rule:  as redoubt_cache_get; flags none: refused when memory is full
local function set_if_version(keys, args)
  local key = only(keys)
  local policy, close = entry_of(key)
  if not args[2] then refuse_argument('takes VERSION VALUE [TTL_MS [TAG]...]') end
  local version = number(args[1])
  if not version or version < 1 then refuse_argument('VERSION is a whole number from 1, of at most 15 digits') end
  check_value(policy, args[2])
  local ttl = ttl_of(policy, args[3])
  check_tags(args, 4)
  return store(policy, key, close, VALUE, '', version, args[2], ttl, args, 4)
end

-- redoubt_cache_negative
--   keys:       1: the entry
--   arguments:  TOKEN [TAG]...; TOKEN is empty: whatever the lease, which ends
--   result:     integer: 1 it is remembered for `negativeTtl` that there is no value; 0 as redoubt_cache_set. BADARG if the
--               namespace remembers none
--   complexity: O(tags)
--   slot rule:  as redoubt_cache_get; flags none: refused when memory is full
local function set_negative(keys, args)
  local key = only(keys)
  local policy, close = entry_of(key)
  if not args[1] then refuse_argument('takes TOKEN [TAG]...') end
  if policy.negative == 0 then refuse_argument('the namespace remembers no absent values: negativeTtl is 0') end
  check_tags(args, 2)
  return store(policy, key, close, NEGATIVE, args[1], nil, '', policy.negative, args, 2)
end

-- redoubt_cache_fail
--   keys:       1: the entry
--   arguments:  TOKEN [RETRY_MS]; no RETRY_MS: the milliseconds of a lease; at most 600000 count
--   result:     integer: 1 until then callers are told that the source is down: they get what is stale, or -2; then one of them
--               computes. 0 the token is not the lease's
--   complexity: O(1)
--   slot rule:  as redoubt_cache_get; flag `allow-oom`
local function fail(keys, args)
  local key = only(keys)
  local policy, close = entry_of(key)
  if not args[1] or args[3] then refuse_argument('takes TOKEN [RETRY_MS]') end
  local retry = policy.lease
  if args[2] then
    retry = number(args[2])
    if not retry or retry < 1 then refuse_argument('RETRY_MS is a whole number of milliseconds from 1') end
  end
  local lease = lease_of(key, close)
  if not began_of(args[1]) or redis.call('GET', lease) ~= args[1] then return 0 end
  redis.call('SET', lease, DOWN, 'PX', math.min(retry, LONGEST_RETRY_MS))
  count(policy, FAILURES)
  return 1
end

-- Kind and version of the entry that is under a key, if it has one and will end; version 0 for what a library of others has there.
local function version_at(key)
  -- HGET on another type would count as an error of the server.
  if not string.find(key, '}', 1, true) or redis.call('TYPE', key).ok ~= 'hash' then return nil, 0 end
  local head = redis.call('HGET', key, 'h')
  if not head or #head < HEAD_BYTES then return nil, 0 end
  local kind, _, _, version = struct.unpack(HEAD, head)
  if kind > TOMBSTONE or version < 1 or redis.call('PTTL', key) < 0 then return nil, 0 end
  return kind, version
end

-- Leaves the versions of entries, and nothing else of them, for the rest of their TTLs.
local function bury(tombs)
  for _, tomb in ipairs(tombs) do
    redis.call('HSET', tomb[1], 'h', struct.pack(HEAD, TOMBSTONE, 0, 0, tomb[2], 0), 'v', '')
  end
end

-- redoubt_cache_invalidate
--   keys:       1 to 256: entries of one namespace
--   arguments:  none
--   result:     integer: entries that there were. Leases end too. All are removed before the first message is published. One with
--               a version is remembered without its value for the rest of its TTL, so that no older version is stored
--   complexity: O(keys)
--   slot rule:  the leases are derived; in a Cluster all keys are of one slot; flag `allow-oom`
local function invalidate(keys, args)
  if #keys < 1 or #keys > MOST_KEYS then refuse_argument('takes 1 to 256 keys') end
  if args[1] then refuse_argument('takes no arguments') end
  local policy, there, gone, tombs = nil, 0, {}, {}
  for at, key in ipairs(keys) do
    local of, close = entry_of(key)
    policy = policy or of
    if of ~= policy then refuse_argument('the keys are of two namespaces') end
    local head = redis.call('HGET', key, 'h')
    local kind, version = nil, 0
    if head then
      local _
      kind, _, _, version = read_head(head)
      if kind ~= TOMBSTONE then there = there + 1 end
    end
    gone[#gone + 1] = lease_of(key, close)
    if version > 0 and redis.call('PTTL', key) > 0 then
      if kind ~= TOMBSTONE then tombs[#tombs + 1] = {key, version} end
    else
      gone[#gone + 1] = key
    end
  end
  clock()
  redis.call('UNLINK', unpack(gone))
  bury(tombs)
  count(policy, INVALIDATIONS, #keys)
  for _, key in ipairs(keys) do publish(policy, 'k ' .. key) end
  return there
end

-- redoubt_cache_invalidate_tag
--   keys:       1: PREFIX{GROUP}
--   arguments:  TAG...: 1 to 64
--   result:     integer: how many tags. All entries of GROUP with one of them are invalid, and what is being computed for one is
--               refused
--   complexity: O(tags), whatever the number of entries
--   slot rule:  the generations are derived; flag `allow-oom`
local function invalidate_tag(keys, args)
  local key = only(keys)
  local policy, close = place_of(key)
  if close ~= #key then refuse_argument('the key is not PREFIX{GROUP}') end
  if not args[1] then refuse_argument('takes TAG...') end
  check_tags(args, 1)
  local now, base = clock(), tags_of(key, close)
  policy.invalidated = now
  for _, tag in ipairs(args) do redis.call('SET', base .. tag, now, 'PX', policy.tag_ms) end
  count(policy, INVALIDATIONS, #args)
  for _, tag in ipairs(args) do publish(policy, 't ' .. key .. ' ' .. tag) end
  return #args
end

-- redoubt_cache_invalidate_prefix
--   keys:       1: PREFIX{@jobs}
--   arguments:  BEGINNING: what the keys begin with that are to go; begins with PREFIX
--   result:     bulk string: the id of the job. It is a field of that hash, `STATE REMOVED BEGINNING`, STATE being `waiting`,
--               `running` or `done`: the agent of the primary removes the keys at a bounded rate, and until then they are served.
--               What is being computed in the namespace is refused at once. BUSY if 100 jobs are not done
--   complexity: O(jobs), at most 100; scans nothing
--   slot rule:  the job is one key: in a Cluster only its node has it, and only that node's keys would go; flag `allow-oom`
local function invalidate_prefix(keys, args)
  local key = only(keys)
  local policy, close = place_of(key)
  if key ~= policy.prefix .. JOBS then refuse_argument('the key is not PREFIX{@jobs}') end
  local beginning = args[1]
  if not beginning or args[2] then refuse_argument('takes BEGINNING') end
  if #beginning > MAX_KEY or string.sub(beginning, 1, #policy.prefix) ~= policy.prefix then
    refuse_argument('BEGINNING begins with the prefix of the namespace and has at most 1024 bytes')
  end
  local jobs, done = redis.call('HGETALL', key), {}
  for at = 1, #jobs, 2 do
    if string.sub(jobs[at + 1], 1, 5) == 'done ' then done[#done + 1] = jobs[at] end
  end
  if #jobs / 2 - #done >= MOST_JOBS then refuse('BUSY as many prefixes as are kept are not done') end
  local now = clock()
  local id = whole(now)
  policy.invalidated, policy.emptied = now, now
  if #jobs / 2 >= MOST_JOBS then redis.call('HDEL', key, unpack(done)) end
  redis.call('HSET', key, id, 'waiting 0 ' .. beginning)
  redis.call('PEXPIRE', key, JOBS_MS)
  count(policy, INVALIDATIONS)
  publish(policy, 'p ' .. beginning)
  return id
end

-- redoubt_caches_remove
--   keys:       1 to 128, of any kind: what the agents' jobs found
--   arguments:  none
--   result:     integer: keys that are gone. An entry with a version is remembered without its value for the rest of its TTL, as by
--               redoubt_cache_invalidate; nothing is published and no lease is looked for
--   complexity: O(keys)
--   slot rule:  in a Cluster all keys are of one slot; flag `allow-oom`
local function remove(keys, args)
  if #keys < 1 or #keys > MOST_REMOVED then refuse_argument('takes 1 to 128 keys') end
  if args[1] then refuse_argument('takes no arguments') end
  local gone, tombs = {}, {}
  for _, key in ipairs(keys) do
    local kind, version = version_at(key)
    if kind ~= TOMBSTONE then
      if version > 0 then tombs[#tombs + 1] = {key, version} else gone[#gone + 1] = key end
    end
  end
  local removed = gone[1] and redis.call('UNLINK', unpack(gone)) or 0
  bury(tombs)
  return removed + #tombs
end

-- redoubt_cache_stats
--   keys:       1: PREFIX{GROUP}
--   arguments:  none
--   result:     array of names and integers, of the namespace since the library was loaded here: hits (fresh values), stale (stale
--               ones), negative, misses (absent), waits (absent, while another caller computes), failed (absent, while the source is
--               down), early (leases before the end), sets, refused (sets that were overtaken), failures (calls of
--               redoubt_cache_fail), invalidations (messages)
--   complexity: O(1); reads and writes no key
--   slot rule:  the key says whose they are; in a Cluster its node answers for itself; flags `no-writes` and `allow-stale`
local function read_stats(keys, args)
  local policy = place_of(only(keys))
  if args[1] then refuse_argument('takes no arguments') end
  local stats = {}
  for at, name in ipairs(COLUMNS) do
    stats[#stats + 1] = name
    stats[#stats + 1] = policy.counts[at + 1]
  end
  return stats
end

-- redoubt_caches_position
--   keys:       none
--   arguments:  PREFIX
--   result:     array: bulk string RUN, integer SEQ: what the last message of the namespace began with; SEQ 0: none yet. Only a
--               primary's is what its messages say
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_position(_, args)
  if #args ~= 1 then refuse_argument('takes PREFIX') end
  local policy = policies[args[1]] or policy_of(args[1])
  if not run then clock() end
  return {run, policy.sequence}
end

-- redoubt_caches_counters
--   keys:       none
--   arguments:  [FIRST]: number of the first row, from 0; none: 0
--   result:     array: an integer that is another one after each load of the library here, then at most 500 rows. A row is an array,
--               one for each namespace that was used since the load: bulk string namespace, then the integers of
--               redoubt_cache_stats in its order
--   complexity: O(500); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_counters(_, args) return counters_page(counters, args) end

-- redoubt_caches_policy
--   keys:       none
--   arguments:  PREFIX
--   result:     bulk string: the generation of the namespace with this prefix that is compiled in; null if there is none
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_policy(_, args)
  if #args ~= 1 then refuse_argument('takes PREFIX') end
  local row = row_of(args[1])
  return row and string.match(row, '^%S+') or false
end

-- redoubt_caches_digest
--   keys:       none
--   arguments:  none
--   result:     bulk string: the digest of this library's source
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_digest() return DIGEST end

register('redoubt_cache_get', get, {'allow-oom'}, 'reads an entry, and says who computes it')
register('redoubt_cache_get_ro', get_read_only, {'no-writes'}, 'reads an entry without a lease')
register('redoubt_cache_check', check, {'allow-oom'}, 'redoubt_cache_get without the value')
register('redoubt_cache_set', set, {}, 'stores a value')
register('redoubt_cache_set_if_version', set_if_version, {}, 'stores a value unless a later one is there')
register('redoubt_cache_negative', set_negative, {}, 'remembers that there is no value')
register('redoubt_cache_fail', fail, {'allow-oom'}, 'says that the source is down')
register('redoubt_cache_invalidate', invalidate, {'allow-oom'}, 'removes entries')
register('redoubt_cache_invalidate_tag', invalidate_tag, {'allow-oom'}, 'makes the entries of tags invalid')
register('redoubt_cache_invalidate_prefix', invalidate_prefix, {'allow-oom'}, 'asks for the removal of all keys that begin alike')
register('redoubt_caches_remove', remove, {'allow-oom'}, 'removes keys of any kind, for the agents')
register('redoubt_cache_stats', read_stats, {'no-writes', 'allow-stale'}, 'counters of one namespace')
register('redoubt_caches_position', read_position, {'no-writes', 'allow-stale'}, 'run and number of the last message')
register('redoubt_caches_counters', read_counters, {'no-writes', 'allow-stale'}, 'counters of the namespaces')
register('redoubt_caches_policy', read_policy, {'no-writes', 'allow-stale'}, 'generation of a namespace that is compiled in')
register('redoubt_caches_digest', read_digest, {'no-writes', 'allow-stale'}, 'digest of the library redoubt_caches')
