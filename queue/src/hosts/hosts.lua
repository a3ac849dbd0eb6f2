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

-- One job tries a host for so long before another does.
local PROBE_MAX = 30000

-- The largest element of the queue that is looked at, in bytes, as in `job.rs`.
local PAYLOAD_BYTES_MAX = 65536
-- The longest name of a host, and what may stand around it: a user name and password, an @, a dot at the end, a port.
local HOST_BYTES_MAX = 253
local AUTHORITY_BYTES_MAX = 4096 + 1 + HOST_BYTES_MAX + 1 + 6

local hosts_read = {}
-- Hosts whose entries could not be understood: they are dropped, and told.
local hosts_dropped = {}
local parked = 0

-- Scheme and authority of a job as imgq writes it: nothing has to be decoded.
local AS_WRITTEN = '^{"id":"%x+","url":"(https?)://([^/?#"\\]+)[/?#"]'

-- The host of a link, as `host.rs` names it; nil where there is none, or none that can be asked.
local function host_in(scheme, authority)
  if not scheme or #authority > AUTHORITY_BYTES_MAX then return nil end
  -- A greedy match finds the last @ in one go, where '[^@]*$' would begin anew at each byte.
  local host = string.lower(string.match(authority, '^.*@(.*)$') or authority)
  local name, port = string.match(host, '^(.*):(%d*)$')
  if name then
    local usual = string.lower(scheme) == 'https' and 443 or 80
    local number = tonumber(port) or usual
    host = number == usual and name or string.format('%s:%.0f', name, number)
  else
    name = host
  end
  if string.sub(name, -1) == '.' then name = string.sub(name, 1, -2) end
  -- Names are looked at by people and by programs that take nothing but text.
  if name == '' or #name > HOST_BYTES_MAX or string.find(name, '[^!-~]') then return nil end
  return host
end

-- The host of a job that was written as imgq writes it; nil of any other.
local function host_as_written(payload)
  if #payload > PAYLOAD_BYTES_MAX then return nil end
  return host_in(string.match(payload, AS_WRITTEN))
end

-- The host that a job's link is asked from; nil where there is none that can be seen. A worker puts a job whose link has to be
-- read as the URL standard does (a tab within the host, `%68ost`) back in its canonical form, for the next claim to see.
-- Then whether the payload had to be decoded for it: 64 KiB of the worst take 2.4 ms, 13 times what it takes to touch them.
local function host_of(payload)
  -- None that a claim of today let in.
  if #payload > PAYLOAD_BYTES_MAX then return nil end
  local scheme, authority = string.match(payload, AS_WRITTEN)
  if scheme then return host_in(scheme, authority) end
  if string.byte(payload) ~= 123 then return nil end
  -- Blanks that JSON does not know may follow. What is decoded is for looking only: what is written is never made of it.
  local fine, job = pcall(cjson.decode, (string.match(payload, '^.*}')))
  if not fine or type(job) ~= 'table' or type(job.url) ~= 'string' then return nil, true end
  if job.oversized ~= nil and job.oversized ~= cjson.null then return nil, true end
  return host_in(string.match(job.url, '^%s*([Hh][Tt][Tt][Pp][Ss]?)://([^/?#\\]+)')), true
end

local function is_number(value)
  return type(value) == 'number' and value > -1e15 and value < 1e15
end

-- Fields of an entry, by the type that each has to have.
local FIELDS = {tat = is_number, next = is_number, ends = is_number, level = is_number, probe = is_number}

function FIELDS.why(value)
  return type(value) == 'string'
end

function FIELDS.alone(value)
  if type(value) ~= 'table' then return false end
  for _, hold in pairs(value) do
    if type(hold) ~= 'table' or not is_number(hold.ends) or not is_number(hold.level) then return false end
  end
  return (pcall(cjson.encode, value))
end

-- Whether an entry is such that whatever is done with it goes well. Fields of a later version are kept.
local function is_understood(state)
  if type(state) ~= 'table' then return false end
  for field, value in pairs(state) do
    local fits = FIELDS[field]
    if type(field) ~= 'string' then
      return false
    elseif fits then
      if not fits(value) then return false end
    elseif type(value) == 'number' and not is_number(value) or type(value) == 'table' and not pcall(cjson.encode, value) then
      return false
    end
  end
  return true
end

-- To be called before anything is taken: what somebody else put in the place of `hosts` is dropped like an entry.
local function open_hosts(key)
  local found = redis.call('TYPE', key).ok
  if found ~= 'hash' and found ~= 'none' then
    redis.call('UNLINK', key)
    hosts_dropped[1] = 'all of them: the key was a ' .. found
  end
end

local function host_state(key, host, now)
  local state = hosts_read[host]
  if not state then
    local text = redis.call('HGET', key, host)
    local fine, read = pcall(cjson.decode, text or '{}')
    state = fine and read
    if not is_understood(state) then
      hosts_dropped[#hosts_dropped + 1] = host
      state = {}
    end
    -- Further ahead than anything is given out: from a clock set back.
    if (state.ends or 0) > now + HOLD_MAX then state.ends = now end
    if (state.probe or 0) > now + PROBE_MAX then state.probe = nil end
    if (state.next or 0) > now + HOLD_MAX + PARK_MAX then state.next = nil end
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
