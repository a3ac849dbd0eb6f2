-- Says that the enqueuer of a batch is alive, while its source keeps it waiting.
-- KEYS: 1 batch
-- Returns 1, or 0 when there is no such batch
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'seen', now_ms())
return 1
