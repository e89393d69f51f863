#!lua name=redoubt

-- redoubt: the library that every primary of a layer has. It shows that functions are loaded and which ones, and frees what libraries
-- that were refused or deleted left behind.
--
-- redoubt_digest
--   keys:       none
--   arguments:  none
--   result:     bulk string: the digest of this library's source
--   complexity: O(1); reads and writes nothing
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`, so replicas answer too, as do
--               servers whose memory is full
--
-- redoubt_collect
--   keys:       none
--   arguments:  none
--   result:     integer: KiB that the Lua of all libraries takes afterwards
--   complexity: O(N) with what that Lua holds; reads and writes no key
--   slot rule:  as redoubt_digest

local DIGEST = '@DIGEST@'

redis.register_function{
  function_name = 'redoubt_digest',
  callback = function() return DIGEST end,
  flags = {'no-writes', 'allow-stale'},
  description = 'digest of the library redoubt',
}

redis.register_function{
  function_name = 'redoubt_collect',
  callback = function()
    collectgarbage('collect')
    return math.floor(collectgarbage('count'))
  end,
  flags = {'no-writes', 'allow-stale'},
  description = 'frees the garbage of all libraries',
}
