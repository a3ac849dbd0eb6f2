-- Forgets batches that finished so long ago, or of which nothing is left but the name. What their jobs left in `results` and `dead` stays.
-- Returns {'ok', how many}
must_know_schema()
must_hold('zset', batches_key)
local before = now_ms() - older_than_ms
local forgotten, kept = 0, 0
for b = batches_from, #ARGV, BATCH_ARGS do
  local batch_key = KEYS[batches_keys_from + (b - batches_from) / BATCH_ARGS * BATCH_KEYS + BATCH_BATCH_KEY]
  local is_there = redis.call('EXISTS', batch_key) == 1
  local finished = is_there and holds('hash', batch_key) and tonumber(redis.call('HGET', batch_key, 'finished'))
  -- Whenever that was, by whatever clock, where no time is given.
  local is_over = not is_there or finished and (older_than_ms == 0 or finished <= before)
  if is_over and redis.call('ZREM', batches_key, ARGV[b + BATCH_BATCH]) == 1 then
    redis.call('UNLINK', batch_key)
    forgotten = forgotten + 1
  else
    kept = kept + 1
  end
end
-- A whole page: the pass goes on behind those that stay. A page that is not full was its last one.
if is_of_pass then add_to(meta_key, 'tidy_skip', kept) end
return {'ok', forgotten}
