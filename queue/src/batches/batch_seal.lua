-- Marks a batch as complete: its enqueue is over. From now on it can finish.
-- `enqueuer` is '' of somebody who knows that there is none any more.
-- Returns {'ok', 0}, {'missing', 0}, {'taken', 0} or {'gap', number of the first chunk that is not there}
must_know_schema()
must_hold('hash', batch_key)
must_hold('zset', batches_unsealed_key)
if redis.call('EXISTS', batch_key) == 0 then return {'missing', 0} end
if enqueuer ~= '' then
  if redis.call('HGET', batch_key, 'enqueuer') ~= enqueuer then return {'taken', 0} end
  local last = tonumber(redis.call('HGET', batch_key, 'chunk')) or 0
  if last < chunks then return {'gap', last + 1} end
end
local now = now_ms()
-- Always a write: with --durable, what is waited for is this one, and all before it.
redis.call('HSET', batch_key, 'seen', now)
redis.call('HSETNX', batch_key, 'sealed', now)
local command = redis.call('HGET', batch_key, 'command')
if command then redis.call('ZREM', batches_unsealed_key, command .. ' ' .. batch) end
finish_batch(batch_key, now)
return {'ok', 0}
