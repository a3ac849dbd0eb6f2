-- Tells a worker which jobs Redis holds for it, and fences off every claim of its, up to `claim_number`, that has not run yet.
-- Returns {'ok', {for each job: field, payload, crashes, 1 when it has to run alone else 0, what it tries for all: hosts and starts as
-- in a claim}}, or {'reaped'} when the worker is no longer registered
must_hold('hash', inflight_key, worker_key, crashes_key)
must_hold('zset', workers_key)
must_hold('set', trials_key)
open_hosts(hosts_key)
if not redis.call('ZSCORE', workers_key, worker) then return {'reaped'} end
if claim_number > (tonumber(redis.call('HGET', worker_key, 'claim')) or 0) then
  redis.call('HSET', worker_key, 'claim', claim_number)
end
local now, jobs, flat = now_ms(), {}, redis.call('HGETALL', inflight_key)
local looks_at_hosts = redis.call('EXISTS', hosts_key) == 1
local crashes_known = redis.call('EXISTS', crashes_key) == 1
local suspects_here, suspects_max = 0, 1000

-- A job that its worker did not know it had must not leave the host untried that it was to try.
local function probes_of(payload)
  local probes = {}
  local hosts = targets_of(payload) or {}
  table.insert(hosts, 1, host_as_written(payload) or '')
  for _, host in ipairs(hosts) do
    local state = host_state(hosts_key, host, now)
    if state.probe and state.prober == worker then
      probes[#probes + 1] = host
      probes[#probes + 1] = '?' .. (state.why or '')
    end
  end
  return probes
end

for i = 1, #flat, 2 do
  jobs[#jobs + 1] = flat[i]
  jobs[#jobs + 1] = flat[i + 1]
  local crashes, suspects = 0, 0
  if crashes_known then crashes, suspects = crashes_of(flat[i + 1]) end
  if crashes == SUSPECT then suspects_here, suspects_max = suspects_here + 1, math.min(suspects_max, suspects) end
  jobs[#jobs + 1] = crashes
  -- An adopted suspect has to run alone like any other.
  jobs[#jobs + 1] = crashes == SUSPECT and suspects == 1 and 1 or 0
  jobs[#jobs + 1] = looks_at_hosts and probes_of(flat[i + 1]) or {}
end
-- Nobody else goes through all of them: jobs of one id, or crashes that somebody deleted, leave a wrong count.
if suspects_here > 0 then
  local max_before = string.match(redis.call('HGET', worker_key, 'suspects') or '', '^%d+ (%d+)$')
  redis.call('HSET', worker_key, 'suspects', suspects_here .. ' ' .. math.min(suspects_max, tonumber(max_before) or 1000))
  redis.call('SADD', trials_key, worker)
elseif redis.call('HEXISTS', worker_key, 'suspects') == 1 then
  redis.call('HDEL', worker_key, 'suspects')
  redis.call('SREM', trials_key, worker)
end
return {'ok', jobs}
