-- Marks a batch as complete: its enqueue is over. From now on it can finish.
-- KEYS: 1 batch
-- ARGV: 1 enqueuer, or "" for somebody who knows that there is none any more, 2 number of its last chunk
-- Returns {"ok", 0}, {"missing", 0}, {"taken", 0} or {"gap", number of the first chunk that is not there}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing', 0} end
if ARGV[1] ~= '' then
  if redis.call('HGET', KEYS[1], 'enqueuer') ~= ARGV[1] then return {'taken', 0} end
  local last = tonumber(redis.call('HGET', KEYS[1], 'chunk')) or 0
  if last < tonumber(ARGV[2]) then return {'gap', last + 1} end
end
local now = now_ms()
-- Always a write: with --durable, what is waited for is this one, and all before it.
redis.call('HSET', KEYS[1], 'seen', now)
redis.call('HSETNX', KEYS[1], 'sealed', now)
finish_batch(KEYS[1], now)
return {'ok', 0}
