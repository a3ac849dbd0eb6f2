-- Marks a batch as complete: its enqueue is over. From now on it can finish.
-- KEYS: 1 batch
-- Returns 1, or 0 when there is no such batch
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = now_ms()
redis.call('HSETNX', KEYS[1], 'sealed', now)
finish_batch(KEYS[1], now)
return 1
