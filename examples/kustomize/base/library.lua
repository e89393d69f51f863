#!lua name=cart
redis.register_function('shop_add_to_cart', function(keys, args)
  return redis.call('HINCRBY', keys[1], args[1], args[2])
end)
