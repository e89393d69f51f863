-- redoubt_caches: caches, with the policies of the namespaces of the layer compiled in.
--
-- Keys. An entry is `PREFIX{GROUP}NAME`, at most 1024 bytes. PREFIX is the namespace's. GROUP has at least one byte and no `}`. NAME has at
-- least one byte and does not begin with `@`. Else both are any bytes.
--
-- What a function derives shares prefix and GROUP, so all keys of a call are in one slot: the lease `PREFIX{GROUP}@l:NAME`, and the
-- generation of a tag, `PREFIX{GROUP}@t:TAG`. Tags are of a GROUP: with one GROUP for all, `PREFIX{0}NAME`, they reach the whole
-- namespace. Every key has a TTL.
--
-- Entries. A hash: `h` is the header, `v` the value, which clients may read by `HGET`. An entry is fresh for its TTL, of
-- which chance takes off up to `jitter`; then for `staleFor` it is stale, and then the server removes it. A TTL is whole
-- milliseconds; one above `maxTtl` counts as `maxTtl`. A version is a whole number from 1, of at most 15 digits.
--
-- Leases. Where a value is absent, stale, or soon to end, one caller gets a lease: a token, and the milliseconds for which it is
-- the one that computes. A set with the token is stored if the lease is still there.
--
-- Invalidations and sets without a token remove a lease. So what was read from the source before them is refused: a cache never brings
-- back what was invalidated. A set with a token of an earlier run is refused too, because this run has no record of what was invalidated
-- by prefix in that one.
--
-- Tags. An entry has at most 64, of 1 to 128 bytes without control characters. It is valid as long as the generation of each of
-- them is the one that was stored with it: whatever the number of entries, an invalidation writes one key. As long as a
-- generation is missing, because the server evicted it, its entries are invalid.
--
-- Replies of get and check. An array of two or four: what to do; the value, null without one; the token, empty without a lease; the
-- milliseconds of the lease, or after which to ask again. What to do:
--
-- - 1 fresh, 4 known to have no value: serve it.
-- - 2 stale while another caller computes or the source is down: serve it.
-- - 3 fresh or stale, 5 known to have no value, 0 absent, each with a lease: serve if there is something, and compute.
-- - -1 absent while another caller computes, -2 absent while the source is down: wait or fail.
--
-- Messages. Each invalidation is published on the channel of the namespace: `RUN SEQ k KEY`, `RUN SEQ t PREFIX{GROUP} TAG` or
-- `RUN SEQ p BEGINNING`. RUN is digits and changes with each primary, start and library; SEQ counts the messages of
-- the namespace in it from 1. A subscriber that gets a gap, or a RUN that is new to it, has missed something.
--
-- Errors, before anything is written:
--
-- - `BADARG`: arguments or a key of another form.
-- - `NOPOLICY`: no namespace has the key's prefix.
-- - `TOOBIG`: the value is above `maxEntryBytes`.
-- - `BUSY`: too many prefixes wait.
-- - `WRONGTYPE`: something else is under the key.
-- - `OOM`: the server's own, when its memory is full.
--
-- A token that is not the lease's is no error: the answer is 0.

-- Header of an entry: kind, milliseconds for which it is stale at its end, milliseconds that it took to compute, version, number of
-- tags; then of each tag generation, length and bytes. Fresh until the key's TTL is down to the stale part: no clock is read.
local HEAD, HEAD_BYTES, TAG_HEAD = '<BI5I4dB', 19, '<dB'
local VALUE, NEGATIVE, TOMBSTONE = 1, 2, 3
local MOST_TAGS, LONGEST_TAG, MOST_KEYS = 64, 128, 256
-- What takes the place of a token while the source is down.
local DOWN, LONGEST_RETRY_MS = '!', 600000
-- A computation counts as this part of the TTL at most: slower ones would be refreshed several times in a TTL.
local LARGEST_SHARE = 50
-- Longer than this, in computations, before an end no caller refreshes early: the chance is below 1 in 20,000.
local REACH = 10

-- When the last call began, and when the first one on this server did, as text: microseconds, and a name for what is remembered
-- in Lua.
local last, run = 0, nil

-- Microseconds. Each is later than the one before, also where the server's clock went back: so what came first is known.
local function clock()
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  if now <= last then now = last + 1 end
  last = now
  run = run or whole(now)
  return now
end

-- Ends the call.
local function refuse(what) error({err = what}) end
local function refuse_argument(what) refuse('BADARG ' .. what) end
local function refuse_type() refuse('WRONGTYPE something else is under the key') end

-- Kind, stale milliseconds, milliseconds to compute, version and number of tags of a header.
local function read_head(head)
  if #head < HEAD_BYTES then refuse_type() end
  return struct.unpack(HEAD, head)
end

local function lease_of(key, close) return string.sub(key, 1, close) .. '@l:' .. string.sub(key, close + 1) end
local function tags_of(key, close) return string.sub(key, 1, close) .. '@t:' end

-- Whether each tag of an entry has the generation that was stored with it.
local function tags_hold(head, key, close, count)
  local base, keys, generations, at = tags_of(key, close), {}, {}, HEAD_BYTES + 1
  for tag = 1, count do
    if #head < at + 8 then refuse_type() end
    local generation, bytes = struct.unpack(TAG_HEAD, head, at)
    at = at + 9
    keys[tag], generations[tag] = base .. string.sub(head, at, at + bytes - 1), generation
    at = at + bytes
  end
  if count == 1 then return tonumber(redis.call('GET', keys[1])) == generations[1] end
  local found = redis.call('MGET', unpack(keys))
  for tag = 1, count do
    if tonumber(found[tag]) ~= generations[tag] then return false end
  end
  return true
end

-- Takes the lease of an entry: its token; or nil, what holds it, and for how many milliseconds.
local function take(policy, key, close)
  local token, lease = whole(clock()) .. '-' .. run, lease_of(key, close)
  local holder = redis.call('SET', lease, token, 'NX', 'GET', 'PX', policy.lease)
  if not holder then return token end
  local left = redis.call('PTTL', lease)
  if left < 0 then -- a plain command took its end away
    left = policy.lease
    redis.call('PEXPIRE', lease, left)
  end
  return nil, holder, math.max(1, left)
end

-- When a lease began, by its token; nil if it is none.
local function began_of(token) return tonumber(string.match(token, '^(%d+)%-%d+$')) end

-- The tags as the header has them, and their generations there for longer than any entry; nil if one of them was invalidated
-- after the computation began, or that began in another run. `began` is nil where nothing was computed.
local function pack_tags(policy, key, close, now, token, began, args, first)
  -- Another run's times are of another clock, and it may have invalidated what this one does not know of.
  if began and string.sub(token, -#run) ~= run then return nil end
  local base, packed = tags_of(key, close), {}
  for at = first, #args do
    local tag = base .. args[at]
    local generation = tonumber(redis.call('GETEX', tag, 'PX', policy.tag_ms))
    if not generation or generation > now then
      -- Evicted, or of a server whose clock was ahead: only what this one remembers tells what was invalidated meanwhile.
      if began and began <= policy.invalidated then return nil end
      -- Not above the beginning of any other computation that is under way.
      generation = math.max(policy.invalidated + 1, now - policy.lease * 1000)
      redis.call('SET', tag, generation, 'PX', policy.tag_ms)
    elseif began and generation >= began then
      return nil
    end
    packed[#packed + 1] = struct.pack(TAG_HEAD, generation, #args[at]) .. args[at]
  end
  return table.concat(packed)
end

-- Publishes an invalidation. Its number is taken first: a message that the server refuses is then missed by all.
local function publish(policy, what)
  policy.sequence = policy.sequence + 1
  redis.call('PUBLISH', policy.channel, run .. ' ' .. policy.sequence .. ' ' .. what)
end

-- Columns of a namespace's row of counters, behind its name.
local COLUMNS = {
  'hits', 'stale', 'negative', 'misses', 'waits', 'failed', 'early', 'sets', 'refused', 'failures', 'invalidations',
}
local HITS, STALE, KNOWN_ABSENT, MISSES, WAITS, FAILED, EARLY, SETS, REFUSED, FAILURES, INVALIDATIONS =
  2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12

local policies, counters = {}, {}

local function count(policy, column, by)
  local counts = policy.counts
  counts[column] = counts[column] + (by or 1)
end

-- A policy is text until it is first used.
local function policy_of(prefix)
  local row = row_of(prefix)
  if not row then refuse('NOPOLICY no cache namespace has this prefix') end
  local ttl, most, jitter, stale, negative, lease, early, bytes, owner, channel =
    string.match(row, '^%-?%d+ (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (.*)$')
  local policy = {
    prefix = prefix, channel = channel, ttl = tonumber(ttl), most = tonumber(most), jitter = tonumber(jitter) / 100,
    stale = tonumber(stale), negative = tonumber(negative), lease = tonumber(lease), early = tonumber(early) / 100,
    bytes = tonumber(bytes), counts = {owner},
    -- Longer than an entry that has the generation can live.
    tag_ms = 2 * (tonumber(most) + tonumber(stale)),
    -- Messages of this run, when it last invalidated a tag or a prefix, and when a prefix.
    sequence = 0, invalidated = 0, emptied = 0,
  }
  for at = 1, #COLUMNS do policy.counts[at + 1] = 0 end
  counters[#counters + 1] = policy.counts
  policies[prefix] = policy
  return policy
end

-- The policy of a key, and where its GROUP ends.
local function place_of(key)
  local open = string.find(key, '{', 1, true)
  local close = open and string.find(key, '}', open + 1, true)
  -- Redis takes no tag from `{}`: it would hash the whole key, so that each derived key was in a slot of its own.
  if not close or close == open + 1 or #key > MAX_KEY then
    refuse_argument('the key is not PREFIX{GROUP}NAME, of at most 1024 bytes')
  end
  local prefix = string.sub(key, 1, open - 1)
  return policies[prefix] or policy_of(prefix), close
end

-- The same of an entry's key.
local function entry_of(key)
  local policy, close = place_of(key)
  local first = string.byte(key, close + 1)
  if not first or first == 64 then refuse_argument('the NAME of PREFIX{GROUP}NAME is empty or begins with @') end
  return policy, close
end
