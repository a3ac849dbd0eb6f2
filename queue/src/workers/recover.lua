-- Takes the jobs of a worker that died back to the front of the queue, and strikes the worker off.
-- Returns {the number of jobs taken back, 1 when it died with most of the fleet else 0}, or {-1, 0} when the worker is not there or not
-- dead after all
--
-- It does not settle: a job that crashed too often is settled by its next claimer, which knows its batch.
local now = now_ms()
local expiry = tonumber(redis.call('ZSCORE', workers_key, worker))
if not expiry or expiry > now then return {-1, 0} end
must_hold('hash', inflight_key, worker_key, crashes_key, stats_key, meta_key)
must_hold('list', ready_key)
must_hold('zset', workers_since_key)
must_hold('set', trials_key)

-- Leases that end within so long of each other end together: those of workers that die at once do so within a heartbeat.
local TOGETHER_MS = lease_ms / 2
-- With one or two it may be chance.
local TOGETHER_MIN = 3
-- A job that was in flight in so many deaths that were nobody's doing is a suspect all the same, or one that kills many at once would
-- do so for ever.
local DEATHS_MAX = 5
-- Suspects that may be in flight in one worker; so few as these run alone, one after the other.
local SUSPECTS_MAX, FEW_SUSPECTS = 64, 4

-- Names that others struck off: an imgq of before `workers:since`, or a person.
local function forget_who_is_gone()
  if redis.call('ZCARD', workers_since_key) <= redis.call('ZCARD', workers_key) then return end
  for _, name in ipairs(redis.call('ZRANGE', workers_since_key, 0, -1)) do
    if not redis.call('ZSCORE', workers_key, name) then redis.call('ZREM', workers_since_key, name) end
  end
end

-- Whether this is one of many deaths at once: a rack, an eviction, a power cut. Then it is no job's doing.
local function is_of_many()
  local from, to, dead = tonumber(redis.call('HGET', meta_key, 'deaths_from')), tonumber(redis.call('HGET', meta_key, 'deaths_to')), 0
  if from and to and expiry >= to - TOGETHER_MS and expiry <= from + TOGETHER_MS then
    from, to, dead = math.min(from, expiry), math.max(to, expiry), tonumber(redis.call('HGET', meta_key, 'deaths')) or 0
  else
    from, to = expiry, expiry
  end
  redis.call('HSET', meta_key, 'deaths_from', from, 'deaths_to', to, 'deaths', dead + 1)
  -- With those that nobody has recovered yet, this one among them. Whoever lives has renewed its lease since.
  local dead_in_all = dead + redis.call('ZCOUNT', workers_key, to - TOGETHER_MS, from + TOGETHER_MS)
  -- Who was there when the leases were renewed for the last time: those that came in their places do not count.
  local fleet = dead + redis.call('ZCOUNT', workers_since_key, '-inf', from - lease_ms)
  return dead_in_all >= TOGETHER_MIN and 2 * dead_in_all > fleet
end

forget_who_is_gone()
local of_many = is_of_many()
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

local alone = redis.call('HGET', worker_key, 'alone')
-- By what they are counted under: what is known of each, and by what it is told from now on where that changes.
local known, told, alone_key = {}, {}, nil
-- Suspects that ran beside each other, and those that become suspects now.
local tried, new = {}, {}
for _, job in ipairs(jobs) do
  local key = crash_key(job[4])
  if job[3] == alone then alone_key = key end
  if not known[key] then
    local crashes, suspects, deaths = crashes_of(job[4])
    known[key] = {crashes, deaths}
    if crashes == SUSPECT and suspects > 1 then tried[#tried + 1] = key end
  end
end

-- A job that ran alone is to blame alone. Where suspects ran it is one of them, and they are halved until it does; one that only
-- waited to run alone did nothing. Otherwise it may be any.
for key, job in pairs(known) do
  local crashes, deaths = unpack(job)
  if of_many then
    deaths = crashes < SUSPECT and deaths + 1 or 0
    if deaths >= DEATHS_MAX then new[#new + 1] = key elseif deaths > 0 then told[key] = crashes .. ' 0 ' .. deaths end
  elseif alone then
    if key == alone_key then told[key] = crashes + 1 end
  elseif #tried == 0 and crashes < SUSPECT then
    if crashes + 1 == SUSPECT then
      new[#new + 1] = key
    else
      told[key] = deaths > 0 and crashes + 1 .. ' 0 ' .. deaths or crashes + 1
    end
  end
end
local function suspect(keys, suspects)
  for _, key in ipairs(keys) do told[key] = suspects > FEW_SUSPECTS and SUSPECT .. ' ' .. suspects or SUSPECT end
end
suspect(new, math.min(#new, SUSPECTS_MAX))
if not of_many and not alone then suspect(tried, math.floor(#tried / 2)) end

local payloads = {}
for r = #jobs, 1, -1 do payloads[#payloads + 1] = jobs[r][4] end
in_parts('LPUSH', ready_key, payloads)
redis.call('DEL', inflight_key, worker_key)
redis.call('ZREM', workers_key, worker)
redis.call('ZREM', workers_since_key, worker)
redis.call('SREM', trials_key, worker)
for key, text in pairs(told) do redis.call('HSET', crashes_key, key, text) end
add_to(stats_key, 'recovered', #jobs)
return {#jobs, of_many and 1 or 0}
