-- What the fleet remembers about hosts: `hosts` has an entry of JSON for each of which there is something to remember.
--   tat    when the next request may start (ms), with a rate: the theoretical arrival time of GCRA (ITU-T I.371, annex A)
--   next   where the next job that has to wait is put in `delayed` (ms)
--   ends   until when the host is left alone (ms), level: how many refusals in a row led there, why: the last one's reason
--   probe  until when one job tries whether the host answers again (ms); nobody else asks it meanwhile
--   alone  worker -> {ends, level}: workers that get no answer while others do
-- A host is what stands between :// and / of a link, with its port where that is not the usual one.

-- A job that has to wait is looked at again after this time at the latest, so that no wrong guess lasts.
local PARK_MAX = 60000
-- Between the first looks at jobs that waited for the end of a hold: 500 a second, until the host's pace is known.
local HOLD_STEP = 2
-- The longest hold there is (a server's Retry-After is believed for an hour): what ends later comes from a clock set back.
local HOLD_MAX = 3700000

local hosts_read = {}
local parked = 0

local function host_of(payload)
  local scheme, authority = string.match(payload, '"url"%s*:%s*"(%a[%w+.-]*):\\?/\\?/([^/?#"\\]*)')
  if not authority then return nil end
  local host = string.lower(string.match(authority, '([^@]*)$'))
  local usual = string.lower(scheme) == 'https' and ':443' or ':80'
  if string.sub(host, -#usual) == usual then host = string.sub(host, 1, -#usual - 1) end
  return host
end

local function host_state(key, host, now)
  local state = hosts_read[host]
  if not state then
    local text = redis.call('HGET', key, host)
    local fine, read = pcall(cjson.decode, text or '{}')
    state = fine and type(read) == 'table' and read or {}
    if (state.ends or 0) > now + HOLD_MAX then state.ends = now end
    hosts_read[host] = state
  end
  return state
end

local function own_hold(state, worker, now)
  local own = state.alone and state.alone[worker]
  return own and own.ends > now and own.ends <= now + HOLD_MAX
end

-- When a job that cannot start now is looked at again: a place of its own from `from` on, `step` ms after the last one's.
local function place_of(state, now, from, step)
  parked = parked + 1
  local at = math.max(state.next or 0, from)
  if at > from + PARK_MAX then
    -- The line is longer than that. The jobs come back spread over half the time, and whoever comes first has the next place.
    return from + PARK_MAX / 2 + (now + parked * 617) % (PARK_MAX / 2)
  end
  state.next = at + step
  return at
end

-- The host asks not to be asked (or does not answer): everybody leaves it alone for a time.
local function refuse(state, now, why, wait, first, longest)
  if (state.ends or 0) > now then
    -- Requests that were under way at the first refusal.
    if wait > 0 then state.ends = math.max(state.ends, now + wait) end
  else
    state.level = (state.level or 0) + 1
    if wait <= 0 then wait = math.min(first * 2 ^ math.min(state.level - 1, 20), longest) end
    state.ends = now + math.max(wait, 1)
  end
  state.why, state.probe = why, nil
end

-- One worker gets no answer. When most workers say so it is the host; otherwise it is the worker, and only that one waits.
local function suspect(state, now, worker, alive, why, first, longest)
  local alone, count = {}, 0
  for name, hold in pairs(state.alone or {}) do
    if hold.ends > now - 30000 and hold.ends <= now + HOLD_MAX then
      alone[name] = hold
      if name ~= worker then count = count + 1 end
    end
  end
  if 2 * (count + 1) > alive then
    state.alone = nil
    refuse(state, now, why, 0, first, longest)
    return
  end
  local level = (alone[worker] and alone[worker].level or 0) + 1
  alone[worker] = {level = level, ends = now + math.min(first * 2 ^ math.min(level - 1, 20), longest)}
  state.alone = alone
end

local function answered(state, worker)
  state.ends, state.level, state.why, state.probe = nil, nil, nil, nil
  if state.alone then
    state.alone[worker] = nil
    if not next(state.alone) then state.alone = nil end
  end
end

-- Writes back what was read; an entry with nothing left to say goes.
local function save_hosts(key, now)
  for host, state in pairs(hosts_read) do
    if (state.tat or 0) <= now then state.tat = nil end
    if (state.next or 0) <= now then state.next = nil end
    if next(state) then
      redis.call('HSET', key, host, cjson.encode(state))
    else
      redis.call('HDEL', key, host)
    end
  end
end
