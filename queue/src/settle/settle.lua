-- Settles a batch of claimed jobs, each only if its field is still in the worker's in-flight hash.
-- Behind the arguments come the fields of the jobs, then what was learnt about hosts (hosts/news.lua), then what becomes of each job:
--   REPORT   then the values of its result, in the order of RESULT_FIELDS
--   RETRY, HOLD, RELEASE
-- Behind the keys come batches and buckets of dedup, which are named by their index. `level` is set where a job failed.
-- Returns {'ok', for each job 1, or 0 when it was not this worker's any more: then nothing was changed for it; what was
-- dropped from `hosts` as nobody could understand it}, or what `stale` says: then nothing was changed
--
-- A key that holds something else fails the whole call before anything is changed, say because somebody made `results` a
-- string: then the jobs are still in flight and their results come again.
-- One HMGET and one HDEL for all, and no names among the arguments: that was a third of the time that a result costs Redis.
must_take(results_key)
if level then must_take(dead_key) end
must_hold('zset', delayed_key, workers_key, hosts_held_key)
must_hold('list', ready_key)
must_hold('hash', inflight_key, stats_key, crashes_key, worker_key, growth_key)
-- Which of these are batches and which are buckets shows job by job.
for k = further_keys_from, #KEYS do
  if not holds('set', KEYS[k]) then must_hold('hash', KEYS[k]) end
end
if level and not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
open_hosts(hosts_key)
local now = now_ms()
local crashes_known = redis.call('EXISTS', crashes_key) == 1
-- Suspects that this worker has in flight, and how many it may have.
local suspects_text = crashes_known and redis.call('HGET', worker_key, 'suspects')
local suspects_here, suspects_max = string.match(suspects_text or '', '^(%d+) (%d+)$')
local suspects_left = 0
if suspects_here then must_hold('set', trials_key) end
-- Only streams are appended to while jobs are gone through; all else that is to be done is gathered, and done when nothing can fail
-- any more: payloads that go back; times and payloads that wait; payloads whose crashes are forgotten; and links that dedup forgets.
local released, waiting, over, failed_links = {}, {}, {}, {}

local function report(a, payload)
  local result = a + REPORT_ARGS
  local outcome, reason = ARGV[result + RESULT_OUTCOME], ARGV[result + RESULT_REASON]
  if ARGV[a + REPORT_IS_FULL] == '1' then
    append_full(result)
  else
    append(result, outcome == 'failed' and payload)
    if outcome == 'failed' then failed_links[#failed_links + 1] = ARGV[a + REPORT_IN_DEDUP] end
  end
  if crashes_known then over[#over + 1] = payload end
  local bytes = tonumber(ARGV[result + RESULT_BYTES]) or 0
  count_result(stats_key, outcome, reason, bytes)
  local batch_key = KEYS[tonumber(ARGV[a + REPORT_BATCH_INDEX])]
  if batch_key then
    batches_touched[batch_key] = true
    count_result(batch_key, outcome, reason, bytes)
    if outcome ~= 'stored' then count_host(batch_key, payload) end
  end
end

local payloads = jobs > 0 and redis.call('HMGET', inflight_key, unpack(ARGV, fields_from, fields_from + jobs - 1)) or {}
local accepted, gone = {}, {}
local a = learn(fields_from + jobs, now)
for job = 1, jobs do
  local action, field = ARGV[a], ARGV[fields_from + job - 1]
  -- What was settled earlier in this call is gone, though its field leaves at the end.
  local payload = not gone[field] and payloads[job]
  accepted[job] = payload and 1 or 0
  if payload then
    gone[field] = true
    if suspects_here and crashes_of(payload) == SUSPECT then suspects_left = suspects_left + 1 end
  end
  if action == 'report' then
    if payload then report(a, payload) end
    a = a + REPORT_ARGS + #RESULT_FIELDS
  elseif action == 'retry' then
    if payload then
      waiting[#waiting + 1], waiting[#waiting + 2] = now + tonumber(ARGV[a + RETRY_AFTER_MS]), ARGV[a + RETRY_PAYLOAD]
      if crashes_known then over[#over + 1] = payload end
      count(stats_key, 'retried', 1)
    end
    a = a + RETRY_ARGS
  elseif action == 'hold' then
    if payload then
      local held = ARGV[a + HOLD_PAYLOAD] ~= '' and ARGV[a + HOLD_PAYLOAD] or payload
      waiting[#waiting + 1], waiting[#waiting + 2] = place_of_held(ARGV[a + HOLD_HOST], now), held
      count(stats_key, 'held', 1)
    end
    a = a + HOLD_ARGS
  elseif action == 'release' then
    if payload then released[#released + 1] = payload end
    a = a + RELEASE_ARGS
  end
end

save_hosts(hosts_key, hosts_held_key, now)
move_forward(now)
put_all_to_wait(delayed_key, waiting, now * 1000)
for _, link in ipairs(failed_links) do
  local bucket_index, digest = string.match(link, '^(%d+) (%d+)$')
  local bucket_key = KEYS[tonumber(bucket_index) or 0]
  if bucket_key and holds('set', bucket_key) and redis.call('SREM', bucket_key, digest) == 1 then count(growth_key, 'count', -1) end
end
for _, payload in ipairs(over) do redis.call('HDEL', crashes_key, crash_key(payload)) end
if crashes_known and gone[redis.call('HGET', worker_key, 'alone')] then redis.call('HDEL', worker_key, 'alone') end
if suspects_left > 0 then
  if suspects_left < tonumber(suspects_here) then
    redis.call('HSET', worker_key, 'suspects', suspects_here - suspects_left .. ' ' .. suspects_max)
  else
    redis.call('HDEL', worker_key, 'suspects')
    redis.call('SREM', trials_key, worker)
  end
end
-- Backwards, so that the first job given back is the first in the queue again.
for r = #released, 1, -1 do
  redis.call('LPUSH', ready_key, released[r])
  count(stats_key, 'released', 1)
end
if jobs > 0 then redis.call('HDEL', inflight_key, unpack(ARGV, fields_from, fields_from + jobs - 1)) end
add_counts(now)
return {'ok', accepted, hosts_dropped}
