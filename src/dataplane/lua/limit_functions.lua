-- The functions of the library redoubt_limits. What a state, a cost and a reply are: limits.lua, which this is put behind.

local MAX_ID, LONGEST_ID_MS = 64, 300000
-- Columns of a limit's row of counters, behind its policy and its name.
local ALLOWED, DENIED, SHADOWED = 3, 4, 5

local policies, counters = {}, {}

-- One limit of a row, NAME ALGORITHM QUOTA WINDOW_MS BURST MODE, as the algorithms and the functions use it.
local function limit_of(policy, counts_denied, is_shadow, name, letter, quota, window_ms, burst)
  local algorithm = ALGORITHMS[letter]
  local interval = math.ceil(window_ms * 1000 / quota)
  local counts = {policy, name, 0, 0, 0}
  counters[#counters + 1] = counts
  return {
    name = name, counts = counts, counts_denied = counts_denied, is_shadow = is_shadow,
    judge = algorithm.judge, put = algorithm.put, give_back = algorithm.give_back, delays = algorithm.delays,
    quota = quota, shown = algorithm.has_burst and burst or quota, interval = interval, most = burst * interval,
    window = window_ms * 1000, window_ms = window_ms,
    -- Counts of one window say nothing about another: a changed window begins with an empty state.
    suffix = letter .. (algorithm.restarts and whole(window_ms) or '') .. ':' .. name,
  }
end

-- A policy is text until it is first used.
local function policy_of(prefix)
  local row = row_of(prefix)
  if not row then return nil end
  local mode, counts_denied, name, rest = string.match(row, '^%-?%d+ (%a) (%d) ([^|]*)(.*)$')
  local policy = {limits = {}, by_name = {}, id_ms = 0}
  for limit_name, letter, quota, window_ms, burst, limit_mode in
    string.gmatch(rest, '|([^ ]+) (%a) (%d+) (%d+) (%d+) (%a)')
  do
    local limit = limit_of(name, counts_denied == '1', mode == 'S' or limit_mode == 'S', limit_name, letter,
      tonumber(quota), tonumber(window_ms), tonumber(burst))
    policy.limits[#policy.limits + 1] = limit
    policy.by_name[limit_name] = limit
    policy.id_ms = math.min(LONGEST_ID_MS, math.max(policy.id_ms, limit.window_ms))
  end
  if #policy.limits == 1 then policy.only = policy.limits[1] end
  policies[prefix] = policy
  return policy
end

-- The policy of a call's key; else nil and an error.
local function place_of(keys)
  local key = keys[1]
  if not key or keys[2] then return nil, bad('takes one key') end
  local open = string.find(key, '{', 1, true)
  -- Redis takes no tag from `{}`: it would hash the whole key, so that each state was in a slot of its own.
  if not open or #key > MAX_KEY or string.byte(key, -1) ~= 125 or string.byte(key, open + 1) == 125 then
    return nil, bad('the key is not PREFIX{SUBJECT}, of at most 1024 bytes')
  end
  local prefix = string.sub(key, 1, open - 1)
  local policy = policies[prefix] or policy_of(prefix)
  if not policy then return nil, redis.error_reply('NOPOLICY no rate limit policy has this prefix') end
  return policy
end

-- A cost; nil if it is none.
local function cost_of(text)
  if not text then return 1 end
  if #text <= 12 and string.find(text, '^%d+$') then return tonumber(text) end
end

local function bad_cost() return bad('COST is a whole number of at most 12 digits') end

-- The limits that `args` name from `first`, all of the policy if none; else nil and an error.
local function limits_of(policy, args, first)
  if not args[first] then return policy.limits end
  local limits, seen = {}, {}
  for at = first, #args do
    local limit = policy.by_name[args[at]]
    if not limit then return nil, redis.error_reply('NOLIMIT the policy has no limit of this name') end
    if seen[limit] then return nil, bad('a limit is named twice') end
    seen[limit] = true
    limits[#limits + 1] = limit
  end
  return limits
end

-- The key that remembers the ID of a call, and where the names of limits begin; nil and an error for a bad one. An ID without
-- braces makes no key that is a state of another subject.
local function id_of(key, args)
  if args[2] ~= 'ID' then return false, 2 end
  local id = args[3]
  if not id or #id < 1 or #id > MAX_ID or string.find(id, '[{}]') then
    return nil, bad('an ID has 1 to 64 bytes, none of them a brace')
  end
  return key .. 'i:' .. id, 4
end

local function reply(allowed, limit, retry)
  if retry > 0 then retry = math.ceil(retry / 1000) end
  return {allowed, limit.shown, limit.remaining, math.ceil(limit.reset / 1000), retry, limit.name}
end

local function count(limit, column) limit.counts[column] = limit.counts[column] + 1 end

-- What `decide` does, for the one limit of a policy: the common call.
local function decide_one(limit, key, cost, writes)
  local state_key = key .. limit.suffix
  local fits, remaining, reset, retry, state, ttl = limit.judge(limit, state_key, clock(), cost)
  local allowed, column = 1, ALLOWED
  if not fits then
    if limit.is_shadow then allowed, column = 2, SHADOWED else allowed, column = 0, DENIED end
  end
  if writes and cost > 0 then
    if state then limit.put(state_key, state, ttl) end
    count(limit, column)
  end
  if limit.is_shadow then retry = 0 elseif retry > 0 then retry = math.ceil(retry / 1000) end
  return {allowed, limit.shown, remaining, math.ceil(reset / 1000), retry, limit.name}
end

-- Whether a limit has a smaller share left than another, or as small a one for longer.
local function is_tighter(limit, other)
  local share, other_share = limit.remaining * other.shown, other.remaining * limit.shown
  if share ~= other_share then return share < other_share end
  return limit.reset > other.reset
end

local function denies_longer(limit, other)
  if limit.retry < 0 or other.retry < 0 then return other.retry >= 0 end
  return limit.retry > other.retry
end

-- Writes what a call did to the limits that were judged.
local function commit(limits, key, is_denied)
  for _, limit in ipairs(limits) do
    if not limit.fits then count(limit, limit.is_shadow and SHADOWED or DENIED)
    elseif not is_denied then count(limit, ALLOWED) end
    if limit.state and not (limit.fits and is_denied) then limit.put(key .. limit.suffix, limit.state, limit.ttl) end
  end
end

-- Judges all, then writes all or none. A limit carries the verdict on itself: no call begins before another has ended.
local function decide(policy, limits, key, now, cost, id_key, writes)
  if id_key and redis.call('EXISTS', id_key) == 1 then cost = 0 end
  local delay = 0
  local denying, shadow, tightest
  for _, limit in ipairs(limits) do
    limit.fits, limit.remaining, limit.reset, limit.retry, limit.state, limit.ttl =
      limit.judge(limit, key .. limit.suffix, now, cost)
    if limit.fits then
      if not tightest or is_tighter(limit, tightest) then tightest = limit end
      if not limit.is_shadow then delay = math.max(delay, limit.retry) end
    elseif limit.is_shadow then
      if not shadow or denies_longer(limit, shadow) then shadow = limit end
    elseif not denying or denies_longer(limit, denying) then
      denying = limit
    end
  end
  if writes and cost > 0 then
    commit(limits, key, denying ~= nil)
    if id_key and not denying then put(id_key, '', policy.id_ms) end
  end
  if denying then return reply(0, denying, denying.retry) end
  if shadow then return reply(2, shadow, delay) end
  return reply(1, tightest, delay)
end

-- redoubt_limit
--   keys:       1: what is limited, PREFIX{SUBJECT}
--   arguments:  [COST [ID id] [NAME]...]; no COST: 1; no NAME: all limits of the policy
--   result:     array: allowed, limit, remaining, reset_ms, retry_ms, name. With an id that was admitted before and is still
--               remembered nothing is counted again: the answer is the present state, admitted. It is remembered for the
--               policy's longest window, but at most 300 s; one that was denied is not. It has 1 to 64 bytes, no braces
--   complexity: O(limits); a sliding log: O(log(quota) + COST)
--   slot rule:  the states are derived, one for each limit, and the key of the id; flags none: refused when memory is full
local function admit(keys, args)
  local policy, failure = place_of(keys)
  if not policy then return failure end
  local cost = cost_of(args[1])
  if not cost then return bad_cost() end
  if policy.only and not args[2] then return decide_one(policy.only, keys[1], cost, true) end
  local id_key, first = id_of(keys[1], args)
  if id_key == nil then return first end
  local limits
  limits, failure = limits_of(policy, args, first)
  if not limits then return failure end
  return decide(policy, limits, keys[1], clock(), cost, id_key, true)
end

-- redoubt_limit_peek
--   keys:       1: as redoubt_limit
--   arguments:  [COST [NAME]...]; no COST: 1
--   result:     as redoubt_limit, for a call that would be made now
--   complexity: as redoubt_limit; writes nothing
--   slot rule:  as redoubt_limit; flag `no-writes`: by FCALL_RO on replicas, by their clock and as far as they have got, and on
--               servers that refuse writes
local function peek(keys, args)
  local policy, failure = place_of(keys)
  if not policy then return failure end
  local cost = cost_of(args[1])
  if not cost then return bad_cost() end
  if policy.only and not args[2] then return decide_one(policy.only, keys[1], cost, false) end
  local limits
  limits, failure = limits_of(policy, args, 2)
  if not limits then return failure end
  return decide(policy, limits, keys[1], clock(), cost, nil, false)
end

-- redoubt_limit_refund
--   keys:       1: as redoubt_limit
--   arguments:  COST [ID id] [NAME]...
--   result:     as redoubt_limit_peek with COST 0, after COST was given back: at most what was taken. With an id only if it is
--               remembered, and it is forgotten: so exactly once
--   complexity: O(limits); a sliding log: O(log(quota) + COST)
--   slot rule:  as redoubt_limit; flag `allow-oom`
local function refund(keys, args)
  local policy, failure = place_of(keys)
  if not policy then return failure end
  local cost = args[1] and cost_of(args[1])
  if not cost then return bad_cost() end
  local key = keys[1]
  local id_key, first = id_of(key, args)
  if id_key == nil then return first end
  local limits
  limits, failure = limits_of(policy, args, first)
  if not limits then return failure end
  -- On some engines the clock moves within a call: three readings could be of two windows.
  local now = clock()
  -- What another type is under is found before anything is written.
  decide(policy, limits, key, now, 0, nil, false)
  if cost > 0 and (not id_key or redis.call('UNLINK', id_key) == 1) then
    for _, of in ipairs(limits) do of.give_back(of, key .. of.suffix, now, cost) end
  end
  return decide(policy, limits, key, now, 0, nil, false)
end

-- redoubt_limit_reset
--   keys:       1: as redoubt_limit
--   arguments:  [NAME]...; none: all limits of the policy
--   result:     integer: limits that had a state, and have none now. Ids stay remembered
--   complexity: O(limits)
--   slot rule:  as redoubt_limit; flag `allow-oom`
local function reset(keys, args)
  local policy, failure = place_of(keys)
  if not policy then return failure end
  local limits
  limits, failure = limits_of(policy, args, 1)
  if not limits then return failure end
  local removed = 0
  for _, of in ipairs(limits) do removed = removed + redis.call('UNLINK', keys[1] .. of.suffix) end
  return removed
end

-- redoubt_limits_counters
--   keys:       none
--   arguments:  [FIRST]: number of the first row, from 0; none: 0
--   result:     array: an integer that is another one after each load of the library here, then at most 500 rows. A row is an array,
--               one for each limit of a policy that was used since the load: bulk strings policy and limit, integers allowed,
--               denied, shadowed: calls that it admitted, that it denied, and that it would have denied as a shadow. Peeks, cost 0
--               and remembered ids do not count
--   complexity: O(500); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_counters(_, args) return counters_page(counters, args) end

-- redoubt_limits_policy
--   keys:       none
--   arguments:  PREFIX
--   result:     bulk string: the generation of the policy with this prefix that is compiled in; null if there is none
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_policy(_, args)
  if #args ~= 1 then return bad('takes PREFIX') end
  local row = row_of(args[1])
  return row and string.match(row, '^%S+') or false
end

-- redoubt_limits_digest
--   keys:       none
--   arguments:  none
--   result:     bulk string: the digest of this library's source
--   complexity: O(1); reads and writes no key
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`
local function read_digest() return DIGEST end

register('redoubt_limit', admit, {}, 'admits or denies a call')
register('redoubt_limit_peek', peek, {'no-writes'}, 'says whether a call would be admitted')
register('redoubt_limit_refund', refund, {'allow-oom'}, 'gives a cost back')
register('redoubt_limit_reset', reset, {'allow-oom'}, 'forgets what was counted')
register('redoubt_limits_counters', read_counters, {'no-writes', 'allow-stale'}, 'counters of the limits')
register('redoubt_limits_policy', read_policy, {'no-writes', 'allow-stale'}, 'generation of a policy that is compiled in')
register('redoubt_limits_digest', read_digest, {'no-writes', 'allow-stale'}, 'digest of the library redoubt_limits')
