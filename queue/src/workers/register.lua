-- Enters a worker under a fresh name, with a whole lease.
-- KEYS: 1 workers, 2 worker, 3 meta
-- ARGV: 1 worker, 2 lease (ms), 3 schema version, then facts: name, value
-- Returns 1, or {"schema", found} when a newer imgq wrote this queue
must_hold('zset', KEYS[1])
must_hold('hash', KEYS[2], KEYS[3])
local schema = tonumber(redis.call('HGET', KEYS[3], 'schema'))
if schema and schema > tonumber(ARGV[3]) then return {'schema', schema} end
redis.call('HSETNX', KEYS[3], 'schema', ARGV[3])
local now = now_ms()
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], 'started', now, 'seen', now, unpack(ARGV, 4))
return {'ok', 0}
