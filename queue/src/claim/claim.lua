-- Claims up to N jobs under the worker's lease: due delayed ones first, then from the front of the queue. Jobs whose host may
-- not be asked now are put in `delayed` on the way, so that they hold up nobody behind them.
-- KEYS: 1 ready, 2 delayed, 3 inflight of the worker, 4 workers, 5 worker, 6 meta, 7 crashes, 8 results, 9 hosts, 10 stats
-- ARGV: 1 worker, 2 claim number, 3 N (at most 1,000), 4 lease (ms), 5 the first 28 hex digits of ids to give out,
--       6 how many results there may be, 0 for any number, 7 µs between two requests to one host, 0 for any rate,
--       8 refusals in a row up to which a rate limit costs no attempt,
--       9.. for each host whose jobs wait in the worker: host, ms between two jobs that it gets done there, or 0 when more
--       of its jobs are welcome
-- Returns {status, ms until the next delayed job is due or -1, 1 when others may be behind what was looked at else 0,
--   1 when some went to the end of the queue else 0, those of the worker's hosts that are to be left alone,
--   what was dropped from `hosts` as nobody could understand it, then for each job: payload, crashes, start}
--   status "ok"; "paused"; "reaped": the worker is no longer registered; "stale": a later claim was here first;
--   "full": there are as many results as there may be, and their readers have not taken them
--   start: ms to wait; ? and a reason: it tries for all others whether its host, which was left alone for that reason,
--   answers again; a reason alone: its host has refused so often that waiting for it is over
--
-- A job's field in the in-flight hash, "claim number.index", is its fencing token: settle acts only if it is there.
-- The number comes from the worker and only rises, so that no rollback of Redis can hand one out twice, and a claim
-- that timed out and runs late is refused.
--
-- First everything is read and decided, then everything is moved: nothing that can fail stands behind the first job's move.
local now = now_ms()
must_hold('list', KEYS[1])
must_hold('zset', KEYS[2], KEYS[4])
must_hold('hash', KEYS[3], KEYS[5], KEYS[6], KEYS[7], KEYS[10])
must_hold('stream', KEYS[8])
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {'reaped'} end
if tonumber(ARGV[2]) <= (tonumber(redis.call('HGET', KEYS[5], 'claim')) or 0) then return {'stale'} end
redis.call('HSET', KEYS[5], 'claim', ARGV[2])
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[4]), ARGV[1])
if redis.call('HGET', KEYS[6], 'paused') then return {'paused'} end
open_hosts(KEYS[9])

-- Trims results that every reader has taken: each consumer group of the stream is a reader. Without one nothing is.
local function trim_taken()
  local exists = redis.call('EXISTS', KEYS[8]) == 1
  local keep_ms, keep_seq
  for _, flat in ipairs(exists and redis.call('XINFO', 'GROUPS', KEYS[8]) or {}) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    -- The first entry that it has not taken: the oldest it was given and did not acknowledge, else the one after the
    -- last that it was given.
    local first = group.pending > 0 and redis.call('XPENDING', KEYS[8], group.name)[2] or group['last-delivered-id']
    local ms, seq = string.match(first, '^(%d+)-(%d+)$')
    ms, seq = tonumber(ms), tonumber(seq) + (group.pending > 0 and 0 or 1)
    if not keep_ms or ms < keep_ms or (ms == keep_ms and seq < keep_seq) then keep_ms, keep_seq = ms, seq end
  end
  if not keep_ms then return end
  local keep = string.format('%.0f-%.0f', keep_ms, keep_seq)
  -- Whole nodes first, a bounded number in one go; what is then left is less than one node.
  if redis.call('XTRIM', KEYS[8], 'MINID', '~', keep, 'LIMIT', 10000) == 0 then
    redis.call('XTRIM', KEYS[8], 'MINID', '=', keep)
  end
end

local max, results_max = tonumber(ARGV[3]), tonumber(ARGV[6])
if results_max > 0 then
  -- What this worker holds will be a result as well.
  local held = redis.call('HLEN', KEYS[3])
  if redis.call('XLEN', KEYS[8]) + held + max > results_max then trim_taken() end
  max = math.min(max, results_max - redis.call('XLEN', KEYS[8]) - held)
  if max <= 0 then return {'full'} end
end
local reply = {'ok', -1, 0, 0, {}, hosts_dropped}
local crashes_known = redis.call('EXISTS', KEYS[7]) == 1

-- Jobs looked at for hosts that cannot take them, in one call: 500 cost about 3 ms.
local LOOKS_MAX = 500
-- Bytes of jobs that one call looks at: 2.8 ms for each MB that a script only touches, and 16 times as much for what has to be
-- decoded.
local LOOKS_BYTES_MAX = 1048576
local DECODING_FACTOR = 16
-- Elements that are read at once: nobody knows how large what was pushed by hand is before it was read.
local PAGE_MAX = 16
-- Jobs that may wait in `delayed`; beyond that, one whose host cannot take it goes to the end of the queue.
local DELAYED_MAX = 200000
-- How far ahead starts are given out: long enough for a claim to come between, short enough to lose little with a worker.
local AHEAD_MAX = 300
-- Refusals of any other kind in a row up to which waiting costs no attempt.
local FREE_HOLDS = 3
-- May stand in front of a payload that was pushed by hand, and blanks on its both sides.
local BYTE_ORDER_MARK = '\239\187\191'

local step = tonumber(ARGV[7]) / 1000
local busy = {}
-- What the fleet gets done there is not known: as many times this worker's pace as there are workers, and half as much
-- again, so that a wrong guess costs another look at a job and never an idle place.
for i = 9, #ARGV, 2 do busy[ARGV[i]] = tonumber(ARGV[i + 1]) / 1.5 / redis.call('ZCARD', KEYS[4]) end
local hosts_matter = step > 0 or #ARGV > 8 or redis.call('EXISTS', KEYS[9]) == 1
local aside_max = hosts_matter and DELAYED_MAX - redis.call('ZCARD', KEYS[2]) or 0

-- What becomes of the jobs that were looked at: fields and payloads for the in-flight hash; times and payloads of those that
-- stay in `delayed`, and of those that come into it; payloads for the end of the queue; members that leave `delayed`; and how
-- many leave the front of the queue.
local filed, staying, parking, rotating, leaving, taken = {}, {}, {}, {}, {}, 0
local aside, ids, looked_bytes = 0, 0, 0

-- When a job may start, as returned; or nil and when it is looked at again.
local function start_of(host)
  if not host then return 0 end
  local state = host_state(KEYS[9], host, now)
  if (state.ends or 0) > now then
    local free = state.why == 'rate_limited' and tonumber(ARGV[8]) or FREE_HOLDS
    if (state.level or 0) > free then return state.why or '' end
    return nil, place_of(state, now, state.ends, HOLD_STEP)
  end
  -- Others do get answers: one of them may have it soon.
  if own_hold(state, ARGV[1], now) then return nil, place_of(state, now, now + 200, HOLD_STEP) end
  if (busy[host] or 0) > 0 then return nil, place_of(state, now, now + busy[host], busy[host]) end
  if (state.probe or 0) > now then return nil, place_of(state, now, now + 500, HOLD_STEP) end
  local start = 0
  if step > 0 then
    local tat = state.tat or 0
    -- Further ahead than anything is given out: from a clock set back, or a slower rate before.
    if tat < now or tat > now + AHEAD_MAX + step then tat = now end
    if tat - now > AHEAD_MAX then return nil, place_of(state, now, tat, step) end
    state.tat = tat + step
    start = math.ceil(tat - now)
  end
  if state.level then
    state.probe = now + PROBE_MAX
    return '?' .. (state.why or '')
  end
  return start
end

-- An id for a job that nobody gave one: from here on it keeps it wherever it goes.
local function new_id()
  ids = ids + 1
  return ARGV[5] .. string.format('%04x', ids)
end

local function with_id(id, rest)
  return '{"id":"' .. id .. '",' .. rest
end

-- Text as JSON. A slash needs no escape, and links are full of them.
local function json(text)
  return (string.gsub(cjson.encode(text), '\\/', '/'))
end

-- A payload without what may stand around it where it was written by hand.
local function trimmed(payload)
  local from = string.match(payload, '^%s*()')
  if string.sub(payload, from, from + 2) == BYTE_ORDER_MARK then from = string.match(payload, '^%s*()', from + 3) end
  return string.sub(payload, from, (string.match(payload, '^.*%S()') or 1) - 1)
end

-- What an element of the queue is as a payload: JSON that begins with a brace, or text that nobody can read. `Job::read` says
-- the same of each, and one table in the tests holds both to it.
local function payload_of(element)
  local payload = element
  if #element <= PAYLOAD_BYTES_MAX then
    if string.byte(payload) ~= 123 then payload = trimmed(payload) end
    if string.byte(payload) ~= 123 and string.find(payload, '://', 1, true) then
      payload = with_id(new_id(), '"url":' .. json(payload) .. '}')
    end
    if #payload <= PAYLOAD_BYTES_MAX then return payload end
  end
  looked_bytes = looked_bytes + #payload
  -- Whoever reads it says so; nothing behind this has to bear its size.
  local beginning = string.gsub(string.sub(element, 1, 200), '[^ -~]', '?')
  return with_id(string.match(element, ID) or new_id(), '"oversized":' .. #payload .. ',"url":' .. json(beginning) .. '}')
end

-- Takes an element, or puts it aside; `member` is set for one of `delayed`. False when the claim ends before it. A job that
-- crashed its worker twice is claimed alone, so that many workers share a group of suspects and none is blamed for another.
local function take(element, member)
  local payload, crashes = payload_of(element), 0
  if crashes_known then
    crashes = tonumber(redis.call('HGET', KEYS[7], crash_key(payload))) or 0
    if crashes >= 2 and #filed > 0 then return false end
  end
  looked_bytes = looked_bytes + math.max(#element, #payload)
  local start = 0
  if hosts_matter then
    local host, is_decoded = host_of(payload)
    if is_decoded then looked_bytes = looked_bytes + DECODING_FACTOR * #payload end
    local due
    start, due = start_of(host)
    if due then
      aside = aside + 1
      if member == payload then
        staying[#staying + 1], staying[#staying + 2] = due, payload
      elseif member or aside_max > 0 then
        parking[#parking + 1], parking[#parking + 2] = due, payload
        if member then leaving[#leaving + 1] = member else aside_max = aside_max - 1 end
      else
        rotating[#rotating + 1] = payload
      end
      return true
    end
  end
  if member then
    leaving[#leaving + 1] = member
    aside_max = aside_max + 1
  end
  filed[#filed + 1] = ARGV[2] .. '.' .. (#filed / 2 + 1)
  filed[#filed + 1] = payload
  reply[#reply + 1] = payload
  reply[#reply + 1] = crashes
  reply[#reply + 1] = start
  if crashes >= 2 then max = 0 end
  return true
end

-- Whether enough was looked at for one call.
local function is_enough()
  if looked_bytes >= LOOKS_BYTES_MAX then reply[3] = 1 end
  return #filed / 2 >= max or aside >= LOOKS_MAX or looked_bytes >= LOOKS_BYTES_MAX
end

-- Reads elements page by page, as many as there may be use for, and takes them until one is refused. Returns how many were taken.
local function take_from(page, is_of_delayed)
  local number = 0
  while not is_enough() do
    local wanted = math.min(number == 0 and 1 or PAGE_MAX, hosts_matter and LOOKS_MAX - aside or max - #filed / 2)
    local elements = page(number, number + wanted - 1)
    for _, element in ipairs(elements) do
      if is_enough() or not take(element, is_of_delayed and element) then return number end
      number = number + 1
    end
    if #elements < wanted then return number end
  end
  return number
end

take_from(function(from, to)
  return redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', from, to - from + 1)
end, true)
taken = take_from(function(from, to)
  return redis.call('LRANGE', KEYS[1], from, to)
end)

-- Hosts first: whether what is put down can be put down was looked at when it was read.
if hosts_matter then
  for i = 9, #ARGV, 2 do
    local state = host_state(KEYS[9], ARGV[i], now)
    if (state.ends or 0) > now or own_hold(state, ARGV[1], now) then table.insert(reply[5], ARGV[i]) end
  end
  -- With a rate every host that was ever asked has an entry: those that say nothing any more go by and by.
  if step > 0 then
    for _, host in ipairs(redis.call('HRANDFIELD', KEYS[9], 4)) do host_state(KEYS[9], host, now) end
  end
  save_hosts(KEYS[9], now)
end
-- Each job comes into its new place before it leaves the one before.
for i = 1, #filed, 1000 do
  redis.call('HSET', KEYS[3], unpack(filed, i, math.min(i + 999, #filed)))
end
for i = 1, #staying, 1000 do
  redis.call('ZADD', KEYS[2], unpack(staying, i, math.min(i + 999, #staying)))
end
for i = 1, #parking, 2 do put_to_wait(KEYS[2], parking[i], parking[i + 1], now * 1000 + i) end
for i = 1, #rotating, 1000 do
  redis.call('RPUSH', KEYS[1], unpack(rotating, i, math.min(i + 999, #rotating)))
end
for i = 1, #leaving, 1000 do
  redis.call('ZREM', KEYS[2], unpack(leaving, i, math.min(i + 999, #leaving)))
end
if taken > 0 then redis.call('LTRIM', KEYS[1], taken, -1) end
if #rotating > 0 then reply[4] = 1 end
if aside > 0 then
  reply[3] = 1
  add_to(KEYS[10], 'held', aside)
end
local next_due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if next_due then reply[2] = math.max(0, tonumber(next_due) - now) end
return reply
