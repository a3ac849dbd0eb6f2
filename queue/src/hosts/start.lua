-- When a claimed job may start, by what the fleet knows of its host.

-- How far ahead starts are given out: long enough for a claim to come between, short enough to lose little with a worker.
local AHEAD_MAX = 300
-- Refusals of any other kind than a rate limit in a row up to which waiting costs no attempt.
local FREE_HOLDS = 3

local host_interval_ms = host_interval_us / 1000
local paces_ms = {}

-- Whether there is anything to look at hosts for; reads at what pace, ms a job, the worker's busy hosts get jobs done.
local function hosts_matter()
  -- What the fleet gets done there is not known: as many times this worker's pace as there are workers, and half as much
  -- again, so that a wrong guess costs another look at a job and never an idle place.
  for a = waiting_from, #ARGV, WAITING_ARGS do
    paces_ms[ARGV[a + WAITING_HOST]] = tonumber(ARGV[a + WAITING_PACE_MS]) / 1.5 / redis.call('ZCARD', workers_key)
  end
  return host_interval_ms > 0 or #ARGV >= waiting_from or redis.call('EXISTS', hosts_key) == 1
end

local function own_hold(state, now)
  local own = state.alone and state.alone[worker]
  return own and own.ends > now and own.ends <= now + HOLD_MAX
end

-- When a job of a host may start, as returned: ms to wait, '?' and a reason where it tries for all others, or a reason alone. Or nil
-- and when it is looked at again.
local function start_of(host, now)
  if not host then return 0 end
  local state = host_state(hosts_key, host, now)
  if (state.ends or 0) > now then
    local free = state.why == 'rate_limited' and free_refusals or FREE_HOLDS
    if (state.level or 0) > free then return state.why or '' end
    return nil, place_of(state, now, state.ends, HOLD_STEP)
  end
  -- Others do get answers: one of them may have it soon.
  if own_hold(state, now) then return nil, place_of(state, now, now + 200, HOLD_STEP) end
  local pace = paces_ms[host] or 0
  if pace > 0 then return nil, place_of(state, now, now + pace, pace) end
  if (state.probe or 0) > now then return nil, place_of(state, now, now + 500, HOLD_STEP) end
  local start = 0
  if host_interval_ms > 0 then
    local tat = state.tat or 0
    -- Further ahead than anything is given out: from a clock set back, or a slower rate before.
    if tat < now or tat > now + AHEAD_MAX + host_interval_ms then tat = now end
    if tat - now > AHEAD_MAX then return nil, place_of(state, now, tat, host_interval_ms) end
    state.tat = tat + host_interval_ms
    start = math.ceil(tat - now)
  end
  if state.level then
    state.probe = now + PROBE_MAX
    return '?' .. (state.why or '')
  end
  return start
end

-- Those of the worker's hosts that are to be left alone.
local function left_alone(now)
  local hosts = {}
  for a = waiting_from, #ARGV, WAITING_ARGS do
    local host = ARGV[a + WAITING_HOST]
    local state = host_state(hosts_key, host, now)
    if (state.ends or 0) > now or own_hold(state, now) then hosts[#hosts + 1] = host end
  end
  return hosts
end

-- With a rate every host that was ever asked has an entry: those that say nothing any more go by and by.
local function look_at_old_entries(now)
  if host_interval_ms == 0 then return end
  for _, host in ipairs(redis.call('HRANDFIELD', hosts_key, 4)) do host_state(hosts_key, host, now) end
end
