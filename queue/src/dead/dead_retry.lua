-- Puts dead jobs back on the queue, or drops them; `action` is 'retry' or 'drop'.
-- Behind the keys come batches and buckets of dedup, each once, which are named by their index; 0 is no batch.
-- Returns {'ok', the number of entries that were still there}, or what `stale` says: then nothing was changed
--
-- A job that is retried leaves `failed` in the counters, and its link is in the queue again for dedup. What is the same for many jobs is
-- asked and counted once.
must_know_schema()
if not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
must_hold('stream', dead_key)
must_hold('list', ready_key)
must_hold('hash', stats_key)
local kinds = {}
for a = jobs_from, #ARGV, JOB_ARGS do
  kinds[tonumber(ARGV[a + JOB_BATCH_INDEX])] = 'hash'
  kinds[tonumber(ARGV[a + JOB_BUCKET_INDEX])] = 'set'
end
for k = further_keys_from, #KEYS do must_hold(kinds[k], KEYS[k]) end

local back, known_again, counts = {}, 0, {}
local function count(key, field)
  local fields = counts[key]
  if not fields then
    fields = {}
    counts[key] = fields
  end
  fields[field] = (fields[field] or 0) - 1
end

local function retry(a)
  local failed_so, payload = 'failed:' .. ARGV[a + JOB_REASON], ARGV[a + JOB_PAYLOAD]
  local batch = tonumber(ARGV[a + JOB_BATCH_INDEX])
  back[#back + 1] = payload
  known_again = known_again + redis.call('SADD', KEYS[tonumber(ARGV[a + JOB_BUCKET_INDEX])], ARGV[a + JOB_DIGEST])
  count(stats_key, 'failed')
  count(stats_key, failed_so)
  if batch > 0 then
    local batch_key = KEYS[batch]
    count(batch_key, 'failed')
    count(batch_key, failed_so)
    count(batch_key, 'host:' .. (host_of(payload) or ''))
  end
end

local moved = 0
for a = jobs_from, #ARGV, JOB_ARGS do
  if redis.call('XDEL', dead_key, ARGV[a + JOB_ENTRY]) == 1 then
    moved = moved + 1
    if action == 'retry' then retry(a) end
  end
end
in_parts('RPUSH', ready_key, back)
if known_again > 0 then add_to(growth_key, 'count', known_again) end
for key, fields in pairs(counts) do
  -- No new hash is made of a batch that is gone.
  if key == stats_key or redis.call('EXISTS', key) == 1 then
    for field, by in pairs(fields) do
      -- Of hosts not all are counted.
      if string.sub(field, 1, 5) ~= 'host:' or redis.call('HEXISTS', key, field) == 1 then add_to(key, field, by) end
    end
    if key ~= stats_key then redis.call('HDEL', key, 'finished') end
  end
end
return {'ok', moved}
