-- Notes what may still be asked of a service, for all programs that use this Redis, for a while.
must_hold('hash', budget_key)
redis.call('HSET', budget_key, unpack(ARGV, numbers_from))
redis.call('EXPIRE', budget_key, seconds)
return {'ok'}
