-- What the fleet remembers about hosts: `hosts` has an entry of JSON for each of which there is something to remember.
--   tat    when the next request may start (ms), with a rate: the theoretical arrival time of GCRA (ITU-T I.371, annex A)
--   next   where the next job that has to wait is put in `delayed` (ms)
--   ends   until when the host is left alone (ms), level: how many refusals in a row led there, why: the last one's reason,
--          since: when that was (ms)
--   probe  until when one job tries whether the host answers again (ms); nobody else asks it meanwhile
--   prober the worker that has this job; when it is not registered any more, nobody waits for what it finds out
--   alone  worker -> {ends, level, since}: workers that get no answer while others do
-- `hosts:held` has the hosts that are left alone or were so lately, by when that ends.

-- The longest hold there is (a server's Retry-After is believed for an hour): what ends later comes from a clock set back.
local HOLD_MAX = 3700000
-- One job tries a host for so long before another does.
local PROBE_MAX = 30000
-- A job that has to wait is looked at again after this time at the latest, so that no wrong guess lasts.
local PARK_MAX = 60000
-- Between the first looks at jobs that waited for the end of a hold: 4,000 a second, until the host's pace is known.
local HOLD_STEP = 0.25

-- A refusal that comes so long after the last hold was over is the first one again.
local HOLD_MEMORY = 600000
-- That a worker alone gets no answer is remembered for so long after its own hold is over.
local SILENCE_MEMORY = 30000

local hosts_read = {}
-- States of which nothing was remembered, and how many of them there will be something to remember of.
local states_new, hosts_added = {}, 0
-- When the holds of these hosts end, as they were read.
local ends_read = {}
-- Hosts whose entries could not be understood: they are dropped, and told.
local hosts_dropped = {}

local function is_number(value)
  return type(value) == 'number' and value > -1e15 and value < 1e15
end

-- Fields of an entry, by the type that each has to have.
local FIELDS = {tat = is_number, next = is_number, ends = is_number, level = is_number, probe = is_number, since = is_number, over = is_number, over_since = is_number}

function FIELDS.why(value)
  return type(value) == 'string'
end

FIELDS.prober = FIELDS.why

function FIELDS.alone(value)
  if type(value) ~= 'table' then return false end
  for name, hold in pairs(value) do
    -- What was an array once may not be one any more when something is taken out of it.
    if type(name) ~= 'string' or type(hold) ~= 'table' or not is_number(hold.ends) or not is_number(hold.level) then return false end
    if hold.since and not is_number(hold.since) then return false end
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

-- A hold of later than now is of a clock that was set back since: it lasts as long as it was meant.
local function move_with_clock(hold, now)
  if not hold.since or hold.since <= now then return end
  if hold.ends then hold.ends = hold.ends - (hold.since - now) end
  hold.since = now
end

-- What is remembered ends by time.
local function age(state, now)
  if (state.ends or 0) + HOLD_MEMORY < now and not state.probe then
    state.ends, state.since, state.level, state.why = nil, nil, nil, nil
  end
  if state.alone then
    for name, hold in pairs(state.alone) do
      move_with_clock(hold, now)
      if hold.ends <= now - SILENCE_MEMORY or hold.ends > now + HOLD_MAX then state.alone[name] = nil end
    end
    if not next(state.alone) then state.alone = nil end
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
    if not text then states_new[state] = true end
    ends_read[host] = state.ends
    move_with_clock(state, now)
    -- Further ahead than anything is given out: from a clock set back.
    if (state.ends or 0) > now + HOLD_MAX then state.ends = now end
    -- Nobody is put further behind the end of a hold: a place of before the clock was set back, or of a hold that ended early.
    if (state.next or 0) > math.max(now, state.ends or 0) + 2 * PARK_MAX then state.next = nil end
    if (state.probe or 0) > now + PROBE_MAX or (state.probe or 0) <= now then state.probe, state.prober = nil, nil end
    age(state, now)
    hosts_read[host] = state
  end
  return state
end

-- Nobody waits any more for what `prober` finds out.
local function end_probe(state, prober)
  if not state.prober or state.prober == prober then state.probe, state.prober = nil, nil end
end

-- Whether an entry may go; what is over in it is dropped.
local function has_nothing_left(state, now)
  if (state.tat or 0) <= now then state.tat = nil end
  if (state.next or 0) <= now then state.next, state.over, state.over_since = nil, nil, nil end
  return not next(state)
end

-- Writes back what was read; an entry with nothing left to say goes.
local function save_hosts(key, held_key, now)
  for host, state in pairs(hosts_read) do
    if has_nothing_left(state, now) then
      redis.call('HDEL', key, host)
    else
      redis.call('HSET', key, host, cjson.encode(state))
    end
    if state.ends then
      redis.call('ZADD', held_key, state.ends, host)
    elseif ends_read[host] then
      redis.call('ZREM', held_key, host)
    end
  end
end
