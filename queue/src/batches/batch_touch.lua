-- Says that the enqueuer of a batch is alive, while its source keeps it waiting.
-- Returns {'ok'}, {'missing'} or {'taken'}
must_know_schema()
local known = redis.call('HGET', batch_key, 'enqueuer')
if not known then return {'missing'} end
if known ~= enqueuer then return {'taken'} end
redis.call('HSET', batch_key, 'seen', now_ms())
return {'ok'}
