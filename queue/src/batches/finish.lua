-- Records when a batch was done: sealed, and as many results as jobs, those that were purged left out.
local function finish_batch(batch, now)
  local b = redis.call('HMGET', batch, 'sealed', 'finished', 'enqueued', 'stored', 'rejected', 'failed', 'purged')
  if not b[1] or b[2] then return end
  local done = (tonumber(b[4]) or 0) + (tonumber(b[5]) or 0) + (tonumber(b[6]) or 0) + (tonumber(b[7]) or 0)
  if done >= (tonumber(b[3]) or 0) then redis.call('HSET', batch, 'finished', now) end
end
