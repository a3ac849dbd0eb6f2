-- Takes the jobs of a worker that died back to the front of the queue, and strikes the worker off.
-- Returns {the number of jobs taken back}, or {-1} when the worker is not there or not dead after all
--
-- It does not settle: a job that crashed too often is settled by its next claimer, which knows its batch.
local now = now_ms()
local expiry = tonumber(redis.call('ZSCORE', workers_key, worker))
if not expiry or expiry > now then return {-1} end
must_hold('hash', inflight_key, worker_key, crashes_key, stats_key)
must_hold('list', ready_key)
local flat = redis.call('HGETALL', inflight_key)
local jobs = {}
for i = 1, #flat, 2 do
  local claim, index = string.match(flat[i], '^(%d+)%.(%d+)$')
  jobs[#jobs + 1] = {tonumber(claim) or 0, tonumber(index) or 0, flat[i], flat[i + 1]}
end
table.sort(jobs, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end)
-- A job that ran alone is to blame alone. Otherwise every job is, but for the suspects (two crashes), which only
-- waited for their turn to run alone.
local alone = redis.call('HGET', worker_key, 'alone')
local payloads, crashed = {}, {}

-- Crashes that are known of a job, those of this call among them.
local function crashes_of(key)
  return crashed[key] or tonumber(redis.call('HGET', crashes_key, key)) or 0
end

for r = #jobs, 1, -1 do
  local field, payload = jobs[r][3], jobs[r][4]
  payloads[#payloads + 1] = payload
  local key = crash_key(payload)
  if alone then
    if alone == field then crashed[key] = crashes_of(key) + 1 end
  elseif crashes_of(key) < 2 then
    crashed[key] = crashes_of(key) + 1
  end
end
in_parts('LPUSH', ready_key, payloads)
redis.call('DEL', inflight_key, worker_key)
redis.call('ZREM', workers_key, worker)
for key, crashes in pairs(crashed) do redis.call('HSET', crashes_key, key, crashes) end
add_to(stats_key, 'recovered', #jobs)
return {#jobs}
