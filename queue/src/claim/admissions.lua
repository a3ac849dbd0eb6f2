-- What claimed jobs are admitted to.

local NOWHERE = 0

-- Whether there is anything to look at hosts for; reads at what pace the worker's busy hosts get jobs done.
local function hosts_matter()
  -- What the fleet gets done there is not known: as many times this worker's pace as there are workers, and half as much
  -- again, so that a wrong guess costs another look at a job and never an idle place.
  for a = waiting_from, #ARGV, WAITING_ARGS do
    paces_ms[ARGV[a + WAITING_HOST]] = tonumber(ARGV[a + WAITING_PACE_MS]) / 1.5 / redis.call('ZCARD', workers_key)
  end
  return host_interval_ms > 0 or #ARGV >= waiting_from or redis.call('EXISTS', hosts_key, hosts_held_key) > 0
end

-- Scheme and authority of the links of which the last look found that they have to wait, and for what. Whoever has to wait has to for the
-- whole of a call, so of a wall of such jobs only the first is looked at closely: a million cost 12 s instead of 18.
local wall_scheme, wall_authority, wall_state, wall_until, wall_apart_ms

-- When a job is looked at again that is like the last one that had to wait; nil of any other.
local function place_at_wall(payload, now)
  if not wall_state or #payload > PAYLOAD_BYTES_MAX then return nil end
  local scheme, authority = string.match(payload, AS_WRITTEN)
  if authority ~= wall_authority or scheme ~= wall_scheme or string.find(payload, '"redirects_to":"', 1, true) then return nil end
  return place_of(wall_state, now, wall_until, wall_apart_ms)
end

-- The hosts that a job is admitted to and their starts, in turn: to that of its link and, where it waits for the hosts that this leads to,
-- to each of them, by one admission for each request; to all or to none. One that has refused so often that waiting is over stands
-- alone, with its reason. Or nil, and when the job is looked at again.
local function admissions_of(payload, host, targets, now)
  if not host then return NOWHERE end
  local hosts, found = targets or {}, {}
  table.insert(hosts, 1, host)
  for _, asked in ipairs(hosts) do
    if not found[asked] then
      local state = host_state(hosts_key, asked, now)
      local verdict, what, apart_ms = may_ask(asked, state, now, AHEAD_MAX)
      if verdict == 'wait' then
        if not targets then
          wall_scheme, wall_authority = string.match(payload, AS_WRITTEN)
          wall_state, wall_until, wall_apart_ms = wall_authority and state, what, apart_ms
        end
        return nil, place_of(state, now, what, apart_ms)
      end
      if verdict == 'refused' then return {asked, what} end
      found[asked] = {verdict, what}
    end
  end
  local admissions = {}
  for _, asked in ipairs(hosts) do
    local state = hosts_read[asked]
    admissions[#admissions + 1] = asked
    admissions[#admissions + 1] = admit(state, now, found[asked][1], found[asked][2])
    -- A further request there comes after this one.
    found[asked] = {'after', host_interval_ms > 0 and math.ceil(state.tat - now) or 0}
  end
  return admissions
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
