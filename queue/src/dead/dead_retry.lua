-- Puts dead jobs back on the queue, or drops them; `action` is 'retry' or 'drop'.
-- Returns {'ok', the number of entries that were still there}, or what `stale` says: then nothing was changed
--
-- A job that is retried leaves `failed` in the counters, and its link is in the queue again for dedup.
must_know_schema()
if not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
must_hold('stream', dead_key)
must_hold('list', ready_key)
must_hold('hash', stats_key)
for k = jobs_keys_from, #KEYS, JOB_KEYS do
  must_hold('hash', KEYS[k + JOB_BATCH_KEY])
  must_hold('set', KEYS[k + JOB_BUCKET_KEY])
end

local function retry(k, a)
  local batch_key, reason, payload = KEYS[k + JOB_BATCH_KEY], ARGV[a + JOB_REASON], ARGV[a + JOB_PAYLOAD]
  redis.call('RPUSH', ready_key, payload)
  if redis.call('SADD', KEYS[k + JOB_BUCKET_KEY], ARGV[a + JOB_DIGEST]) == 1 then add_to(growth_key, 'count', 1) end
  add_to(stats_key, 'failed', -1)
  add_to(stats_key, 'failed:' .. reason, -1)
  if ARGV[a + JOB_HAS_BATCH] == '1' and redis.call('EXISTS', batch_key) == 1 then
    add_to(batch_key, 'failed', -1)
    add_to(batch_key, 'failed:' .. reason, -1)
    local host = 'host:' .. (host_of(payload) or '')
    if redis.call('HEXISTS', batch_key, host) == 1 then add_to(batch_key, host, -1) end
    redis.call('HDEL', batch_key, 'finished')
  end
end

local moved, k = 0, jobs_keys_from
for a = jobs_from, #ARGV, JOB_ARGS do
  if redis.call('XDEL', dead_key, ARGV[a + JOB_ENTRY]) == 1 then
    moved = moved + 1
    if action == 'retry' then retry(k, a) end
  end
  k = k + JOB_KEYS
end
return {'ok', moved}
