#!lua name=redoubt

-- redoubt: the library that every primary of a layer has. It shows that functions are loaded and which ones.
--
-- redoubt_digest
--   keys:       none
--   arguments:  none
--   result:     bulk string: the digest of this library's source
--   complexity: O(1); reads and writes nothing
--   slot rule:  no key, so any node answers for itself; flags `no-writes` and `allow-stale`, so replicas answer too, as do
--               servers whose memory is full

local DIGEST = '@DIGEST@'

redis.register_function{
  function_name = 'redoubt_digest',
  callback = function() return DIGEST end,
  flags = {'no-writes', 'allow-stale'},
  description = 'digest of the library redoubt',
}
