-- Enters a worker under a fresh name, with a whole lease, and what is said about it: name, value, …
-- Returns {'ok', 0}, or {'schema', found} when a newer imgq wrote this queue
must_hold('zset', workers_key, workers_since_key)
must_hold('hash', worker_key, meta_key)
local found = tonumber(redis.call('HGET', meta_key, 'schema'))
if found and found > schema then return {'schema', found} end
redis.call('HSETNX', meta_key, 'schema', schema)
local now = now_ms()
redis.call('ZADD', workers_key, now + lease_ms, worker)
redis.call('ZADD', workers_since_key, now, worker)
redis.call('HSET', worker_key, 'started', now, 'seen', now, unpack(ARGV, facts_from))
return {'ok', 0}
