-- Removes jobs that wait, those of one page that are still where the caller saw them; `place` is 'ready' or 'delayed'.
-- Returns {'ok', the number of jobs removed}, or what `stale` says: then nothing was changed
--
-- Each job that goes is counted as `purged` in its batch, which would else never finish, and its link may be enqueued again.
must_know_schema()
if not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
must_hold('list', ready_key)
must_hold('zset', delayed_key)
must_hold('hash', stats_key, growth_key, crashes_key)
for k = jobs_keys_from, #KEYS, JOB_KEYS do
  must_hold('hash', KEYS[k + JOB_BATCH_KEY])
  must_hold('set', KEYS[k + JOB_BUCKET_KEY])
end
local jobs = (#ARGV - jobs_from + 1) / JOB_ARGS

-- What the caller said of a job, counted from 0.
local function of_job(job, name)
  return ARGV[jobs_from + job * JOB_ARGS + name]
end

-- Workers claim from the front of `ready` meanwhile, so that the page begins somewhere before what is there now; jobs that were
-- given back may stand before it, and then the caller reads again. What is compared is whole payloads: an equal one is as good.
local function remove_from_ready(removed)
  local there = redis.call('LRANGE', ready_key, 0, jobs - 1)
  local skip = 0
  while skip < jobs and of_job(skip, JOB_PAYLOAD) ~= there[1] do skip = skip + 1 end
  local count = 0
  while skip + count < jobs and of_job(skip + count, JOB_PAYLOAD) == there[count + 1] do
    count = count + 1
    removed[count] = skip + count - 1
  end
  if count > 0 then redis.call('LTRIM', ready_key, count, -1) end
end

local function remove_from_delayed(removed)
  for job = 0, jobs - 1 do
    if redis.call('ZREM', delayed_key, of_job(job, JOB_PAYLOAD)) == 1 then removed[#removed + 1] = job end
  end
end

local removed = {}
if place == 'ready' then remove_from_ready(removed) else remove_from_delayed(removed) end

local crashes_known = redis.call('EXISTS', crashes_key) == 1
local batches, forgotten = {}, 0
for _, job in ipairs(removed) do
  local k = jobs_keys_from + job * JOB_KEYS
  forgotten = forgotten + redis.call('SREM', KEYS[k + JOB_BUCKET_KEY], of_job(job, JOB_DIGEST))
  if crashes_known then redis.call('HDEL', crashes_key, crash_key(of_job(job, JOB_PAYLOAD))) end
  if of_job(job, JOB_HAS_BATCH) == '1' then
    local batch_key = KEYS[k + JOB_BATCH_KEY]
    batches[batch_key] = (batches[batch_key] or 0) + 1
  end
end
if forgotten > 0 then add_to(growth_key, 'count', -forgotten) end
if #removed > 0 then add_to(stats_key, 'purged', #removed) end
local now = now_ms()
for batch_key, count in pairs(batches) do
  if redis.call('EXISTS', batch_key) == 1 then
    add_to(batch_key, 'purged', count)
    finish_batch(batch_key, now)
  end
end
return {'ok', #removed}
