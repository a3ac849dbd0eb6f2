-- Admission: whether a host may be asked now, by a job that is claimed or for the target of a redirect.

-- How far ahead starts are given out: long enough for a claim to come between, short enough to lose little with a worker.
local AHEAD_MAX = 300
-- Refusals of any other kind than a rate limit in a row up to which waiting costs no attempt.
local FREE_HOLDS = 3
-- Starts that are given out to one job at most: its link and its redirects, and the one that a start ahead leaves behind it.
local STARTS_MAX = 12
-- Entries that are looked at in each call whether they have anything left to say: of holds that are forgotten, and any others. Of the
-- others there are twice as many as the call adds, so that no more than half of all can have nothing left to say.
local FORGOTTEN_MAX, SAMPLED_MIN, SAMPLED_FOR_NEW = 128, 4, 2

local host_interval_ms = host_interval_us / 1000
-- At what pace, ms a job, this worker gets jobs done at hosts of which it has enough for now.
local paces_ms = {}

local function own_hold(state, now)
  local own = state.alone and state.alone[worker]
  return own and own.ends > now and own.ends <= now + HOLD_MAX
end

-- Whether somebody who is alive tries the host for all others: a probe ends with its worker, whatever this one held and told.
local function is_probed(state, now)
  if (state.probe or 0) <= now then return false end
  return not state.prober or redis.call('ZSCORE', workers_key, state.prober) and true
end

-- When the next request may start under the rate.
local function next_start(state, now)
  local tat = state.tat or 0
  -- Further ahead than anything is given out: from a clock set back, or a slower rate before.
  if tat < now or tat > now + AHEAD_MAX + STARTS_MAX * host_interval_ms then return now end
  return tat
end

-- Whether a host may be asked, with a start that lies `ahead_ms` ahead at most. Asking changes nothing. Returns
--   'after' and ms to wait; 'probe' and the reason for which the host was left alone: it is to be tried for all others;
--   'refused' and this reason: it has refused so often that waiting for it is over;
--   'wait', when it is looked at again, and how far apart such looks are
local function may_ask(host, state, now, ahead_ms)
  if (state.ends or 0) > now then
    local free = state.why == 'rate_limited' and free_refusals or FREE_HOLDS
    if (state.level or 0) > free then return 'refused', state.why or '' end
    return 'wait', state.ends, HOLD_STEP
  end
  -- Others do get answers: one of them may have it soon.
  if own_hold(state, now) then return 'wait', now + 200, HOLD_STEP end
  local pace_ms = paces_ms[host] or 0
  if pace_ms > 0 then return 'wait', now + pace_ms, pace_ms end
  if is_probed(state, now) then return 'wait', now + 500, HOLD_STEP end
  local start = now
  if host_interval_ms > 0 then
    start = next_start(state, now)
    if start - now > ahead_ms then return 'wait', start, host_interval_ms end
  end
  if state.level then return 'probe', state.why or '' end
  return 'after', math.ceil(start - now)
end

-- Gives out what `may_ask` found. Returns the start as it stands in replies: ms to wait, or '?' and the reason of a probe.
local function admit(state, now, verdict, what)
  if host_interval_ms > 0 then
    if states_new[state] then states_new[state], hosts_added = nil, hosts_added + 1 end
    state.tat = next_start(state, now) + host_interval_ms
  end
  if verdict ~= 'probe' then return what end
  state.probe, state.prober = now + PROBE_MAX, worker
  return '?' .. what
end

-- Entries end by time, though nobody may ever ask about their hosts again.
local function look_at_old_entries(now)
  local forgotten = redis.call('ZRANGE', hosts_held_key, '-inf', '(' .. now - HOLD_MEMORY, 'BYSCORE', 'LIMIT', 0, FORGOTTEN_MAX)
  for _, host in ipairs(forgotten) do
    host_state(hosts_key, host, now)
    -- Also where the index knows a host that has no entry.
    ends_read[host] = ends_read[host] or 0
  end
  for _, host in ipairs(redis.call('HRANDFIELD', hosts_key, math.max(SAMPLED_MIN, SAMPLED_FOR_NEW * hosts_added))) do
    if not hosts_read[host] then
      local state = host_state(hosts_key, host, now)
      -- What has something left to say stays as it is, and is not written anew.
      if not has_nothing_left(state, now) then hosts_read[host], ends_read[host] = nil, nil end
    end
  end
end
