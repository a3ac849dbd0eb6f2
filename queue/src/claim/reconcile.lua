-- Tells a worker which jobs Redis holds for it, and fences off every claim of its, up to `claim_number`, that has not run yet.
-- Returns {'ok', {for each job: field, payload, crashes}}, or {'reaped'} when the worker is no longer registered
must_hold('hash', inflight_key, worker_key, crashes_key)
must_hold('zset', workers_key)
if not redis.call('ZSCORE', workers_key, worker) then return {'reaped'} end
if claim_number > (tonumber(redis.call('HGET', worker_key, 'claim')) or 0) then
  redis.call('HSET', worker_key, 'claim', claim_number)
end
local jobs, flat = {}, redis.call('HGETALL', inflight_key)
local crashes_known = redis.call('EXISTS', crashes_key) == 1
for i = 1, #flat, 2 do
  jobs[#jobs + 1] = flat[i]
  jobs[#jobs + 1] = flat[i + 1]
  -- An adopted suspect has to run alone like any other.
  jobs[#jobs + 1] = crashes_known and tonumber(redis.call('HGET', crashes_key, crash_key(flat[i + 1]))) or 0
end
return {'ok', jobs}
