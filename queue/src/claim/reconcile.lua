-- Tells a worker which jobs Redis holds for it, and fences off every claim of its that has not run yet.
-- KEYS: 1 inflight of the worker, 2 workers, 3 worker, 4 crashes
-- ARGV: 1 worker, 2 claim number: claims up to it are refused from now on
-- Returns {1, field, payload, crashes, …}, or {0} when the worker is no longer registered
must_hold('hash', KEYS[1], KEYS[3], KEYS[4])
must_hold('zset', KEYS[2])
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {0} end
if tonumber(ARGV[2]) > (tonumber(redis.call('HGET', KEYS[3], 'claim')) or 0) then
  redis.call('HSET', KEYS[3], 'claim', ARGV[2])
end
local reply, flat = {1}, redis.call('HGETALL', KEYS[1])
local crashes_known = redis.call('EXISTS', KEYS[4]) == 1
for i = 1, #flat, 2 do
  reply[#reply + 1] = flat[i]
  reply[#reply + 1] = flat[i + 1]
  -- An adopted suspect has to run alone like any other.
  reply[#reply + 1] = crashes_known and tonumber(redis.call('HGET', KEYS[4], crash_key(flat[i + 1]))) or 0
end
return reply
