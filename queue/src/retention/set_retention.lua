-- Sets for how long what ended is kept; of what is not said it stays as it is. 0 is for ever.
must_know_schema()
local function set(what, ms)
  if ms then redis.call('HSET', meta_key, 'keep_' .. what .. '_ms', string.format('%.0f', ms)) end
end
set('batches', keep_batches_ms)
set('results', keep_results_ms)
set('dead', keep_dead_ms)
set('readers', keep_readers_ms)
-- What is older now than it is kept stands at the beginning.
redis.call('HDEL', meta_key, 'tidy_skip')
return {'ok'}
