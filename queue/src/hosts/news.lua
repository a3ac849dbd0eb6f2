-- What is made of what a worker learnt about hosts.

-- The host asks not to be asked (or does not answer): everybody leaves it alone for a time.
local function refuse(state, now, why, server_wait_ms, first_ms, longest_ms)
  if (state.ends or 0) > now then
    -- Requests that were under way at the first refusal.
    if server_wait_ms > 0 then state.ends = math.max(state.ends, now + server_wait_ms) end
  else
    state.level = (state.level or 0) + 1
    local wait_ms = server_wait_ms
    if wait_ms <= 0 then wait_ms = math.min(first_ms * 2 ^ math.min(state.level - 1, 20), longest_ms) end
    state.ends = now + math.max(wait_ms, 1)
  end
  state.since, state.why, state.probe, state.prober = now, why, nil, nil
end

-- One worker gets no answer. When most workers say so it is the host; otherwise it is the worker, and only that one waits.
local function suspect(state, now, why, first_ms, longest_ms)
  local alone, count = {}, 0
  for name, hold in pairs(state.alone or {}) do
    if hold.ends <= now + HOLD_MAX then
      alone[name] = hold
      -- One that left or died is in no number of workers: started again and again, a bad one would be most of them.
      if name ~= worker and redis.call('ZSCORE', workers_key, name) then count = count + 1 end
    end
  end
  if 2 * (count + 1) > redis.call('ZCARD', workers_key) then
    state.alone = nil
    refuse(state, now, why, 0, first_ms, longest_ms)
    return
  end
  local level = (alone[worker] and alone[worker].level or 0) + 1
  alone[worker] = {level = level, since = now, ends = now + math.min(first_ms * 2 ^ math.min(level - 1, 20), longest_ms)}
  state.alone = alone
end

-- The host answers again. A hold that is not over came later than whoever says so tried the host: it stays.
local function answered(state, now)
  if (state.ends or 0) <= now then
    state.ends, state.since, state.level, state.why, state.probe, state.prober = nil, nil, nil, nil, nil, nil
  end
  if state.alone then
    state.alone[worker] = nil
    if not next(state.alone) then state.alone = nil end
  end
end

-- Takes in all news from ARGV[a] on. Returns where they end. One function for all kinds: each one more costs every call of the script.
local function learn(a, now)
  while true do
    local kind = ARGV[a]
    if kind == 'refused' then
      refuse(host_state(hosts_key, ARGV[a + REFUSED_HOST], now), now, ARGV[a + REFUSED_REASON],
        tonumber(ARGV[a + REFUSED_SERVER_WAIT_MS]), tonumber(ARGV[a + REFUSED_FIRST_MS]), tonumber(ARGV[a + REFUSED_LONGEST_MS]))
      a = a + REFUSED_ARGS
    elseif kind == 'silent' then
      suspect(host_state(hosts_key, ARGV[a + SILENT_HOST], now), now, ARGV[a + SILENT_REASON],
        tonumber(ARGV[a + SILENT_FIRST_MS]), tonumber(ARGV[a + SILENT_LONGEST_MS]))
      a = a + SILENT_ARGS
    elseif kind == 'answered' then
      answered(host_state(hosts_key, ARGV[a + ANSWERED_HOST], now), now)
      a = a + ANSWERED_ARGS
    elseif kind == 'unused' then
      local host = ARGV[a + UNUSED_HOST]
      local state = host_state(hosts_key, host, now)
      if (state.tat or 0) > now then state.tat = math.max(now, state.tat - tonumber(ARGV[a + UNUSED_INTERVAL_MS])) end
      if ARGV[a + UNUSED_WAS_PROBE] == '1' then end_probe(state, worker) end
      bring_forward(host, now)
      state.next = nil
      a = a + UNUSED_ARGS
    else
      return a
    end
  end
end

-- When a job is looked at again that its worker was not let start.
local function place_of_held(host, now)
  local state = host_state(hosts_key, host, now)
  if (state.ends or 0) > now then return place_of(state, now, state.ends, HOLD_STEP) end
  -- Under a rate the next start is so far away; otherwise all that is known is that it has no place now.
  local next_start = math.min(state.tat or 0, now + PARK_MAX)
  return place_of(state, now, math.max(next_start, now + 200), HOLD_STEP)
end
