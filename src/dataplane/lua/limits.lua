-- redoubt_limits: rate limits, with the policies of the layer compiled in.
--
-- Keys. A call names one key, `PREFIX{SUBJECT}`. PREFIX is the policy's, SUBJECT what is limited (a customer, an address): any bytes that
-- do not begin with `}`. The key has at most 1024 bytes.
--
-- Each limit keeps its state under that key followed by the algorithm's letter and the limit's name. An ID is kept under it too, so all
-- keys of a call are in one slot. Every key has a TTL: state ends when it is as if it had never been.
--
-- Costs. A whole number of at most 12 digits. Cost 0 is always admitted and writes nothing.
--
-- Replies. `[allowed, limit, remaining, reset_ms, retry_ms, name]`, five integers and a bulk string. Milliseconds are rounded up.
--
-- - `allowed`: 0 denied, 1 admitted, 2 admitted only because the limit that denies is a shadow.
-- - `limit`: the burst, or the quota where the algorithm has no burst.
-- - `remaining`: what the limit would still admit.
-- - `reset_ms`: until its state is as if never used.
-- - `retry_ms`, denied: until the same call would be admitted, -1 if its cost is above what ever fits.
-- - `retry_ms`, admitted: how long to wait before acting, the longest delay of the shapers, else 0.
-- - `name`: the limit that decides, of which the other numbers are.
--
-- Of the limits that deny, the one that denies longest decides. If none denies, it is the same among the shadows that would deny. Else
-- the one with the smallest share left decides.
--
-- Several limits. All are read, then all are written or none: a call that one of them denies consumes nothing. A shadow that would
-- deny consumes nothing itself and hinders no other.
--
-- Clock. The server's, read once per call in whole microseconds. A state that lies in the future, because the clock went back
-- or the policy became smaller, counts as the fullest that it can be.
--
-- Denied calls write nothing, with two exceptions: such a state is brought down to the fullest, and with `countDenied` a limit
-- that denies becomes full, so that a caller that goes on calling stays out.
--
-- Errors, before anything is written:
--
-- - `BADARG`: arguments or a key of another form.
-- - `NOPOLICY`: no policy has the key's prefix.
-- - `NOLIMIT`: the policy has no limit of this name.
-- - `WRONGTYPE`: something else is under a limit's key.
-- - `TOOLARGE`: a log holds more than this library writes. Plain commands may write under the same key, and a server does nothing else
--   while a function runs.
-- - `OOM`: the server's own, when its memory is full.

-- State of a window: index * ONE_WINDOW + count, the index modulo WINDOWS: below 2^53 in all. A count is below 2^33.
local ONE_WINDOW, WINDOWS = 8589934592, 1048576
-- Indexes of the sliding counter's windows are modulo this: four bytes.
local INDEXES = 4294967296
-- Arguments of one command: Lua's `unpack` fits about 8,000.
local BATCH = 1000
-- Entries of a log: `maxEntries` is at most that.
local MAX_LOG = 10000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Ends the call.
local function refuse_type() error({err = 'WRONGTYPE something else is under the key of the limit'}) end

-- A number that this library wrote.
local function read_number(text)
  local value = text and #text < 17 and string.find(text, '^%d+$') and tonumber(text)
  return value or refuse_type()
end

local function stored(key)
  local text = redis.call('GET', key)
  return text and read_number(text)
end

local function put(key, state, milliseconds)
  redis.call('SET', key, state, 'PX', milliseconds)
end

-- Writes a state that ends in `left` microseconds, or removes one that has ended.
local function settle(key, state, left)
  if left > 0 then put(key, state, math.ceil(left / 1000)) else redis.call('UNLINK', key) end
end

-- An algorithm is three functions.
--
-- judge(limit, key, now, cost) reads, and answers
--   fits         whether the limit admits the cost
--   remaining    what it would admit after this call, at least 0
--   reset        microseconds until the state is as if never used
--   retry        denied: microseconds until the cost fits, -1: never; admitted: microseconds to wait before acting
--   state, ttl   what is to be written, and for how many milliseconds; nil: nothing
-- put(key, state, ttl) writes that.
-- give_back(limit, key, now, cost) takes a cost off the state, never below nothing.
--
-- Times are in microseconds. `interval` is the time in which one unit becomes free again, `most` that of a whole burst.

-- GCRA and leaky bucket. State: when all that was admitted is worked off.
local function judge_meter(limit, key, now, cost)
  local interval, most, price = limit.interval, limit.most, cost * limit.interval
  local worked_off, is_set = stored(key), false
  local debt = worked_off and worked_off - now or 0
  if debt < 0 then debt = 0 elseif debt > most then debt, is_set = most, true end
  local used = debt + price
  if used <= most then
    local delay = limit.delays and debt or 0
    return true, math.floor((most - used) / interval), used, delay, now + used, math.ceil(used / 1000)
  end
  if limit.counts_denied then debt, is_set = most, true end
  local retry = price > most and -1 or debt + price - most
  local remaining = math.floor((most - debt) / interval)
  if is_set then return false, remaining, debt, retry, now + debt, math.ceil(debt / 1000) end
  return false, remaining, debt, retry
end

local function give_back_meter(limit, key, now, cost)
  local worked_off = stored(key)
  if not worked_off then return end
  local debt = math.min(worked_off - now, limit.most) - cost * limit.interval
  settle(key, now + debt, debt)
end

-- Token bucket. State: when the bucket was empty; it has been filling since.
local function judge_bucket(limit, key, now, cost)
  local interval, most, price = limit.interval, limit.most, cost * limit.interval
  local empty, is_set = stored(key), false
  if not empty or empty < now - most then empty = now - most elseif empty > now then empty, is_set = now, true end
  local after = empty + price
  if after <= now then
    local reset = after + most - now
    return true, math.floor((now - after) / interval), reset, 0, after, math.ceil(reset / 1000)
  end
  if limit.counts_denied then empty, is_set = now, true end
  local retry = price > most and -1 or empty + price - now
  local remaining, reset = math.floor((now - empty) / interval), empty + most - now
  if is_set then return false, remaining, reset, retry, empty, math.ceil(reset / 1000) end
  return false, remaining, reset, retry
end

local function give_back_bucket(limit, key, now, cost)
  local empty = stored(key)
  if not empty then return end
  empty = math.min(empty, now) - cost * limit.interval
  settle(key, empty, empty + limit.most - now)
end

-- Fixed window of the clock. State: index of the window, and what was admitted in it. A window that is one ahead goes on: the
-- clock went back. Answers the index, the count, and when the window ends.
local function read_window(limit, key, now)
  local window, state = limit.window, stored(key)
  local index, count = math.floor(now / window), 0
  if state then
    local ahead = (math.floor(state / ONE_WINDOW) - index) % WINDOWS
    if ahead <= 1 then index, count = index + ahead, state % ONE_WINDOW end
  end
  return index, count, (index + 1) * window - now
end

local function judge_window(limit, key, now, cost)
  local quota = limit.quota
  local index, count, left = read_window(limit, key, now)
  local is_set = limit.counts_denied
  local fits = count + cost <= quota or cost == 0
  if fits then count, is_set = count + cost, true elseif is_set then count = quota end
  local remaining, reset = math.max(0, quota - count), count > 0 and left or 0
  local retry = fits and 0 or cost > quota and -1 or left
  if is_set then
    return fits, remaining, reset, retry, index % WINDOWS * ONE_WINDOW + count, math.ceil(left / 1000)
  end
  return fits, remaining, reset, retry
end

local function give_back_window(limit, key, now, cost)
  local index, count, left = read_window(limit, key, now)
  count = count - cost
  settle(key, index % WINDOWS * ONE_WINDOW + count, count > 0 and left or 0)
end

-- Fixed window from the first hit. State: what was admitted; the window ends with the key, in the key's last millisecond, whose
-- PTTL is 0. Answers the count, what is left in milliseconds, and whether the key is to get another TTL.
local function read_first_hit(limit, key)
  local count, left = stored(key), limit.window_ms
  if not count then return 0, left, true end
  local lives = redis.call('PTTL', key)
  if lives == 0 then return 0, left, true end
  if lives < 0 or lives > left then return count, left, true end
  return count, lives, false
end

local function judge_first_hit(limit, key, _, cost)
  local quota = limit.quota
  local count, left, is_fresh = read_first_hit(limit, key)
  local is_set = limit.counts_denied or (is_fresh and count > 0)
  local fits = count + cost <= quota or cost == 0
  if fits then count, is_set = count + cost, true elseif limit.counts_denied then count = quota end
  local remaining, reset = math.max(0, quota - count), count > 0 and left * 1000 or 0
  local retry = fits and 0 or cost > quota and -1 or left * 1000
  if is_set then return fits, remaining, reset, retry, count, is_fresh and left or nil end
  return fits, remaining, reset, retry
end

-- Without a TTL the key keeps the one it has: setting it again would let the window slide.
local function put_first_hit(key, state, milliseconds)
  if milliseconds then put(key, state, milliseconds) else redis.call('SET', key, state, 'KEEPTTL') end
end

local function give_back_first_hit(limit, key, _, cost)
  local count, left, is_fresh = read_first_hit(limit, key)
  if count > cost then put_first_hit(key, count - cost, is_fresh and left or nil) else redis.call('UNLINK', key) end
end

-- Sliding counter: this window's count, and the one before as far as it still overlaps. State: index of the window, what was
-- admitted in it and in the one before. Answers the three and when the window ends.
local function read_counter(limit, key, now)
  local window = limit.window
  local index = math.floor(now / window)
  local current, previous, text = 0, 0, redis.call('GET', key)
  if text then
    if #text ~= 12 then refuse_type() end
    local of, count, before = struct.unpack('<I4I4I4', text)
    local behind = (index - of) % INDEXES
    if behind == 0 then current, previous = count, before
    elseif behind == 1 then previous = count
    elseif behind == INDEXES - 1 then index, current, previous = index + 1, count, before end -- the clock went back
  end
  return index, current, previous, (index + 1) * window - now
end

local function write_counter(index, current, previous)
  return struct.pack('<I4I4I4', index % INDEXES, current, previous)
end

-- What is above the quota, times the window: whole numbers below 2^53, because quota * window is at most 3 * 10^15.
local function judge_counter(limit, key, now, cost)
  local quota, window = limit.quota, limit.window
  local index, current, previous, left = read_counter(limit, key, now)
  local before = previous * math.min(left, window)
  local fits = before + (current + cost - quota) * window <= 0 or cost == 0
  local is_set, retry = limit.counts_denied, 0
  if fits then
    current, is_set = current + cost, true
  else
    if is_set then current = quota end
    if cost > quota then
      retry = -1
    elseif current + cost <= quota then -- within this window
      retry = left - math.floor((quota - current - cost) * window / previous)
    else -- within the next one, in which `current` is the one before
      retry = left + window - math.floor((quota - cost) * window / current)
    end
  end
  local remaining = math.max(0, math.floor(((quota - current) * window - before) / window))
  local reset = current > 0 and left + window or previous > 0 and left or 0
  if is_set then
    return fits, remaining, reset, retry, write_counter(index, current, previous), math.ceil((left + window) / 1000)
  end
  return fits, remaining, reset, retry
end

local function give_back_counter(limit, key, now, cost)
  local index, current, previous, left = read_counter(limit, key, now)
  local taken = math.min(current, cost)
  current, previous = current - taken, math.max(0, previous - (cost - taken))
  local ends = current > 0 and left + limit.window or previous > 0 and left or 0
  settle(key, write_counter(index, current, previous), ends)
end

-- Sliding log. State: a list of the times at which a unit was admitted, oldest first.
local function entry(key, at) return read_number(redis.call('LINDEX', key, at)) end

-- The first entry from `low` to `high` that is later than `time`; the one at `high` is.
local function first_later(key, low, high, time)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if entry(key, middle) > time then high = middle else low = middle + 1 end
  end
  return low
end

-- How many entries there are, how many of them are over, and how many lie in the future; and the newest.
local function read_log(limit, key, now)
  local held, over = redis.call('LLEN', key), now - limit.window
  if held == 0 then return 0, 0, 0, over end
  if held > MAX_LOG then error({err = 'TOOLARGE the log of the limit has more entries than any limit admits'}) end
  local newest = entry(key, -1)
  if newest <= over then return held, held, 0, over end
  local drop, late = 0, 0
  if entry(key, 0) <= over then drop = first_later(key, 1, held - 1, over) end
  if newest > now then newest, late = now, held - first_later(key, drop, held - 1, now) end
  return held, drop, late, newest
end

local function judge_log(limit, key, now, cost)
  local quota, window = limit.quota, limit.window
  local held, drop, late, newest = read_log(limit, key, now)
  local live = held - drop
  if live + cost <= quota or cost == 0 then
    local reset = (cost > 0 and now or newest) + window - now
    local change = {now = now, drop = drop, late = late, push = cost}
    return true, math.max(0, quota - live - cost), reset, 0, change, limit.window_ms
  end
  local push = 0
  if limit.counts_denied then -- its oldest entries give way
    push = math.min(cost, quota)
    local excess = math.max(0, live + push - quota)
    newest, drop, live = now, drop + excess, live + push - excess
    late = math.min(late, held - drop)
  end
  local retry = -1
  if cost <= quota then
    local leaves = drop + live + cost - quota - 1
    retry = (leaves < held and math.min(entry(key, leaves), now) or now) + window - now
  end
  local remaining, reset = math.max(0, quota - live), newest + window - now
  if push > 0 or late > 0 then
    return false, remaining, reset, retry, {now = now, drop = drop, late = late, push = push}, limit.window_ms
  end
  return false, remaining, reset, retry
end

local function put_log(key, change, milliseconds)
  if change.drop > 0 then redis.call('LTRIM', key, change.drop, -1) end
  if change.late > 0 then redis.call('LTRIM', key, 0, -change.late - 1) end
  local left = change.late + change.push
  while left > 0 do
    local batch = {}
    for at = 1, math.min(left, BATCH) do batch[at] = change.now end
    redis.call('RPUSH', key, unpack(batch))
    left = left - #batch
  end
  redis.call('PEXPIRE', key, milliseconds)
end

local function give_back_log(_, key, _, cost) redis.call('LTRIM', key, 0, -cost - 1) end

-- By the letter that stands in a policy's row and in the keys of states.
local ALGORITHMS = {
  g = {judge = judge_meter, put = put, give_back = give_back_meter, has_burst = true},
  m = {judge = judge_meter, put = put, give_back = give_back_meter, has_burst = true},
  s = {judge = judge_meter, put = put, give_back = give_back_meter, has_burst = true, delays = true},
  b = {judge = judge_bucket, put = put, give_back = give_back_bucket, has_burst = true},
  f = {judge = judge_window, put = put, give_back = give_back_window, restarts = true},
  h = {judge = judge_first_hit, put = put_first_hit, give_back = give_back_first_hit, restarts = true},
  c = {judge = judge_counter, put = put, give_back = give_back_counter, restarts = true},
  l = {judge = judge_log, put = put_log, give_back = give_back_log},
}

