-- Settles a batch of claimed jobs, each only if its field is still in the worker's in-flight hash.
-- KEYS: 1 inflight of the worker, 2 results, 3 dead, 4 delayed, 5 ready, 6 stats, 7 crashes, 8 worker,
--       9.. batches and dedup buckets, named by their index
-- ARGV: for each job, by its first argument:
--   "report", field, KEYS index of its batch or 0, KEYS index of its dedup bucket or 0, digest of its link, outcome,
--             reason, bytes, number of the following, then name and value of each field of the result
--             (a dedup bucket is named for a failed job only, whose link may be enqueued again)
--   "retry", field, delay (ms), payload with one more attempt spent
--   "release", field
-- Returns for each job 1, or 0 when it was not this worker's any more: then nothing was changed for it
--
-- The order within a job (result in, field out) matters: a script is not rolled back when a command fails, say because
-- somebody made `results` a string; then the job is still in flight and its result comes again.
local now = now_ms()
local crashes_known = redis.call('EXISTS', KEYS[7]) == 1
local reply, released, is_released, counts, touched = {}, {}, {}, {}, {}

local function count(key, field, by)
  counts[key] = counts[key] or {}
  counts[key][field] = (counts[key][field] or 0) + by
end

local function runs_no_more(field)
  if crashes_known and redis.call('HGET', KEYS[8], 'alone') == field then redis.call('HDEL', KEYS[8], 'alone') end
end

local function forget_crashes(field, payload)
  if crashes_known then redis.call('HDEL', KEYS[7], crash_key(payload)) end
  runs_no_more(field)
end

local i = 1
while i <= #ARGV do
  local action, field = ARGV[i], ARGV[i + 1]
  -- A field that is given back leaves at the end of this call, and is gone for the rest of it.
  local payload = not is_released[field] and redis.call('HGET', KEYS[1], field)
  reply[#reply + 1] = payload and 1 or 0
  if action == 'report' then
    local outcome, reason, bytes, n = ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7]), tonumber(ARGV[i + 8])
    if payload then
      local entry = {unpack(ARGV, i + 9, i + 8 + n)}
      redis.call('XADD', KEYS[2], '*', unpack(entry))
      if outcome == 'failed' then
        entry[#entry + 1] = 'job'
        entry[#entry + 1] = payload
        redis.call('XADD', KEYS[3], '*', unpack(entry))
        local bucket = tonumber(ARGV[i + 3])
        if bucket > 0 then redis.call('HDEL', KEYS[bucket], ARGV[i + 4]) end
      end
      redis.call('HDEL', KEYS[1], field)
      forget_crashes(field, payload)
      count(KEYS[6], outcome, 1)
      if bytes > 0 then count(KEYS[6], 'bytes', bytes) end
      local batch = tonumber(ARGV[i + 2])
      if batch > 0 then
        local key = KEYS[batch]
        touched[key] = true
        count(key, outcome, 1)
        if bytes > 0 then count(key, 'bytes', bytes) end
        if reason ~= '' then count(key, outcome .. ':' .. reason, 1) end
      end
    end
    i = i + 9 + n
  elseif action == 'retry' then
    if payload then
      redis.call('ZADD', KEYS[4], now + tonumber(ARGV[i + 2]), ARGV[i + 3])
      redis.call('HDEL', KEYS[1], field)
      forget_crashes(field, payload)
      count(KEYS[6], 'retried', 1)
    end
    i = i + 4
  else
    if payload then
      released[#released + 1] = {field, payload}
      is_released[field] = true
      runs_no_more(field)
    end
    i = i + 2
  end
end
-- Backwards, so that the first job given back is the first in the queue again.
for r = #released, 1, -1 do
  redis.call('LPUSH', KEYS[5], released[r][2])
  redis.call('HDEL', KEYS[1], released[r][1])
  count(KEYS[6], 'released', 1)
end
for key, fields in pairs(counts) do
  -- A batch whose hash is gone was purged: no new hash is made of its late results.
  if not touched[key] or redis.call('EXISTS', key) == 1 then
    for field, by in pairs(fields) do redis.call('HINCRBY', key, field, by) end
    if touched[key] then finish_batch(key, now) end
  end
end
return reply
