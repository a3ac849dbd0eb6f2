-- Says that the enqueuer of a batch is alive, while its source keeps it waiting.
-- KEYS: 1 batch
-- ARGV: 1 enqueuer
-- Returns "ok", "missing" or "taken"
local enqueuer = redis.call('HGET', KEYS[1], 'enqueuer')
if not enqueuer then return 'missing' end
if enqueuer ~= ARGV[1] then return 'taken' end
redis.call('HSET', KEYS[1], 'seen', now_ms())
return 'ok'
