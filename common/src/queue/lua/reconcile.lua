-- Tells a worker which jobs Redis holds for it, and fences off every claim of its that has not run yet.
-- KEYS: 1 inflight of the worker, 2 workers, 3 worker
-- ARGV: 1 worker, 2 claim number: claims up to it are refused from now on
-- Returns {1, field, payload, …}, or {0} when the worker is no longer registered
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {0} end
if tonumber(ARGV[2]) > (tonumber(redis.call('HGET', KEYS[3], 'claim')) or 0) then
  redis.call('HSET', KEYS[3], 'claim', ARGV[2])
end
return {1, unpack(redis.call('HGETALL', KEYS[1]))}
