
-- What every library with policies begins with, behind the line that names it. It is put in front of what the library's things
-- are and of its functions.

local DIGEST = '@DIGEST@'
-- The policies in a few long strings: a call of any library gets up to three times dearer with thousands of strings, because
-- Lua's collector visits each of them. A page is lines `PREFIX\tGENERATION ...` between line feeds.
local PAGES = {
@PAGES@
}
local MAX_KEY, MAX_PREFIX = 1024, 128

local function bad(what) return redis.error_reply('BADARG ' .. what) end
local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

-- Lua's own conversion rounds at 14 digits.
local function whole(number) return string.format('%.0f', number) end

-- Only what a library writes is a number: `tonumber` would also take `nan` and `0x10`.
local function number(text)
  if text and #text < 16 and string.find(text, '^%d+$') then return tonumber(text) end
end

-- What is compiled in for the policy whose keys begin with `prefix`: GENERATION and more; nil if there is none. In which page it
-- is, `page_of` in template.rs computes alike.
local function row_of(prefix)
  if #prefix > MAX_PREFIX or string.find(prefix, '[\t\n]') then return nil end
  local hash = 0
  for at = 1, #prefix do hash = (hash * 31 + string.byte(prefix, at)) % 16777216 end
  local page = PAGES[hash % #PAGES + 1]
  local found = string.find(page, '\n' .. prefix .. '\t', 1, true)
  if not found then return nil end
  local first = found + #prefix + 2
  return string.sub(page, first, string.find(page, '\n', first, true) - 1)
end

-- Counters, which the agent of the node reads every few seconds and adds up: a load sets them to zero. A row is the use, what of it
-- is counted, and whole numbers that only grow. Rows stay where they are, so they can be read in pages. The page from row
-- `args[1]` on, from 0, behind a number that no other load has: when its counters were first read, microseconds since 1970.
local COUNTERS_PAGE = 500
local read_since = nil

local function counters_page(rows, args)
  local first = number(args[1] or '0')
  if not first or args[2] then return bad('takes [FIRST], the number of a row') end
  if not read_since then
    local time = redis.call('TIME')
    read_since = time[1] * 1000000 + time[2]
  end
  local page = {read_since}
  for at = first + 1, math.min(first + COUNTERS_PAGE, #rows) do page[#page + 1] = rows[at] end
  return page
end

local function register(name, callback, flags, description)
  redis.register_function{function_name = name, callback = callback, flags = flags, description = description}
end

