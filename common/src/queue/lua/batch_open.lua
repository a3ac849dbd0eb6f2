-- Starts a batch.
-- KEYS: 1 batch, 2 batches
-- ARGV: 1 batch id, 2 what is enqueued, for people
-- Returns 1, also for a repeated call
local now = now_ms()
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'started', now, 'seen', now, 'source', ARGV[2], 'enqueued', 0,
    'stored', 0, 'rejected', 0, 'failed', 0, 'bytes', 0)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
return 1
