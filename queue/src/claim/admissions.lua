-- What claimed jobs are admitted to.

local NOWHERE = {}

-- Whether there is anything to look at hosts for; reads at what pace the worker's busy hosts get jobs done.
local function hosts_matter()
  -- What the fleet gets done there is not known: as many times this worker's pace as there are workers, and half as much
  -- again, so that a wrong guess costs another look at a job and never an idle place.
  for a = waiting_from, #ARGV, WAITING_ARGS do
    paces_ms[ARGV[a + WAITING_HOST]] = tonumber(ARGV[a + WAITING_PACE_MS]) / 1.5 / redis.call('ZCARD', workers_key)
  end
  return host_interval_ms > 0 or #ARGV >= waiting_from or redis.call('EXISTS', hosts_key, hosts_held_key) > 0
end

-- The hosts that a job is admitted to and their starts, in turn: to that of its link and, where it waits for the host that this redirects
-- to, to that one; to both or to none. One that has refused so often that waiting is over stands alone, with its reason. Or nil, and when
-- the job is looked at again.
local function admissions_of(host, target, now)
  if not host then return NOWHERE end
  local state = host_state(hosts_key, host, now)
  local verdict, what, apart_ms = may_ask(host, state, now, AHEAD_MAX)
  if verdict == 'wait' then return nil, place_of(state, now, what, apart_ms) end
  if verdict == 'refused' then return {host, what} end
  if not target then return {host, admit(state, now, verdict, what)} end
  if target == host then
    -- Two requests there, one after the other.
    local first = admit(state, now, verdict, what)
    local second = host_interval_ms > 0 and math.ceil(state.tat - now) or 0
    return {host, first, host, admit(state, now, 'after', second)}
  end
  local target_state = host_state(hosts_key, target, now)
  local target_verdict, target_what, target_apart_ms = may_ask(target, target_state, now, AHEAD_MAX)
  if target_verdict == 'wait' then return nil, place_of(target_state, now, target_what, target_apart_ms) end
  if target_verdict == 'refused' then return {target, target_what} end
  local start = admit(state, now, verdict, what)
  return {host, start, target, admit(target_state, now, target_verdict, target_what)}
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
