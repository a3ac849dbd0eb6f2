-- Claims up to N jobs under the worker's lease: due delayed ones first, then from the front of the queue. Jobs whose host may
-- not be asked now are put in `delayed` on the way, so that they hold up nobody behind them.
-- KEYS: 1 ready, 2 delayed, 3 inflight of the worker, 4 workers, 5 worker, 6 meta, 7 crashes, 8 results, 9 hosts, 10 stats
-- ARGV: 1 worker, 2 claim number, 3 N (at most 1,000), 4 lease (ms), 5 the first 28 hex digits of ids to give out,
--       6 how many results there may be, 0 for any number, 7 µs between two requests to one host, 0 for any rate,
--       8 refusals in a row up to which a rate limit costs no attempt,
--       9.. for each host whose jobs wait in the worker: host, ms between two jobs that it gets done there, or 0 when more
--       of its jobs are welcome
-- Returns {status, ms until the next delayed job is due or -1, 1 when jobs were put aside and others may be behind them
--   else 0, 1 when some went to the end of the queue else 0, those of the worker's hosts that are to be left alone,
--   then for each job: payload, crashes, start}
--   status "ok"; "paused"; "reaped": the worker is no longer registered; "stale": a later claim was here first;
--   "full": there are as many results as there may be, and their readers have not taken them
--   start: ms to wait; ? and a reason: it tries for all others whether its host, which was left alone for that reason,
--   answers again; a reason alone: its host has refused so often that waiting for it is over
--
-- A job's field in the in-flight hash, "claim number.index", is its fencing token: settle acts only if it is there.
-- The number comes from the worker and only rises, so that no rollback of Redis can hand one out twice, and a claim
-- that timed out and runs late is refused.
local now = now_ms()
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {'reaped'} end
if tonumber(ARGV[2]) <= (tonumber(redis.call('HGET', KEYS[5], 'claim')) or 0) then return {'stale'} end
redis.call('HSET', KEYS[5], 'claim', ARGV[2])
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[4]), ARGV[1])
if redis.call('HGET', KEYS[6], 'paused') then return {'paused'} end

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
local reply, filed = {'ok', -1, 0, 0, {}}, {}
local crashes_known = redis.call('EXISTS', KEYS[7]) == 1

-- Jobs looked at for hosts that cannot take them, in one call: 500 cost about 3 ms.
local LOOKS_MAX = 500
-- Jobs that may wait in `delayed`; beyond that, one whose host cannot take it goes to the end of the queue.
local DELAYED_MAX = 200000
-- How far ahead starts are given out: long enough for a claim to come between, short enough to lose little with a worker.
local AHEAD_MAX = 300
-- One job tries a host for so long before another does.
local PROBE_MAX = 30000
-- Refusals of any other kind in a row up to which waiting costs no attempt.
local FREE_HOLDS = 3

local step = tonumber(ARGV[7]) / 1000
local aside_max = DELAYED_MAX
local busy = {}
-- What the fleet gets done there is not known: as many times this worker's pace as there are workers, and half as much
-- again, so that a wrong guess costs another look at a job and never an idle place.
for i = 9, #ARGV, 2 do busy[ARGV[i]] = tonumber(ARGV[i + 1]) / 1.5 / redis.call('ZCARD', KEYS[4]) end
local hosts_matter = step > 0 or #ARGV > 8 or redis.call('EXISTS', KEYS[9]) == 1
if hosts_matter then aside_max = DELAYED_MAX - redis.call('ZCARD', KEYS[2]) end
local aside = 0

-- When a job may start, as returned; or nil and when it is looked at again.
local function start_of(payload)
  local host = host_of(payload)
  if not host then return 0 end
  local state = host_state(KEYS[9], host, now)
  if (state.ends or 0) > now then
    local free = state.why == 'rate_limited' and tonumber(ARGV[8]) or FREE_HOLDS
    if state.level > free then return state.why end
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

-- A job that nobody gave an id gets it here, so that it keeps it wherever it goes from now on.
local function with_id(payload, rest)
  return '{"id":"' .. ARGV[5] .. string.format('%04x', #filed / 2 + aside) .. '",' .. rest
end

-- Takes a payload, or puts it aside; false when the claim ends before it. A job that crashed its worker twice is claimed
-- alone, so that many workers share a group of suspects and none is blamed for another.
local function take(payload, is_ready)
  local crashes = 0
  if crashes_known then
    crashes = tonumber(redis.call('HGET', KEYS[7], crash_key(payload))) or 0
    if crashes >= 2 and #filed > 0 then return false end
  end
  if string.sub(payload, 1, 1) ~= '{' and string.find(payload, '://', 1, true) then
    local url = string.match(payload, '^%s*(.-)%s*$')
    payload = with_id(payload, '"url":' .. string.gsub(cjson.encode(url), '\\/', '/') .. '}')
  end
  local start = 0
  if hosts_matter then
    local due
    start, due = start_of(payload)
    if due then
      -- Two that are alike would be one in a sorted set.
      if not string.find(payload, '"id"', 1, true) then payload = with_id(payload, string.sub(payload, 2)) end
      if is_ready and aside >= aside_max then
        redis.call('RPUSH', KEYS[1], payload)
        reply[4] = 1
      else
        redis.call('ZADD', KEYS[2], due, payload)
      end
      aside = aside + 1
      return true
    end
  end
  filed[#filed + 1] = ARGV[2] .. '.' .. (#filed / 2 + 1)
  filed[#filed + 1] = payload
  reply[#reply + 1] = payload
  reply[#reply + 1] = crashes
  reply[#reply + 1] = start
  if crashes >= 2 then max = 0 end
  return true
end

local function may_go_on()
  return #filed / 2 < max and aside < LOOKS_MAX
end

local due = redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, hosts_matter and max > 0 and LOOKS_MAX or max)
for _, payload in ipairs(due) do
  -- Removed first: to put it aside is to give it a later time.
  if not may_go_on() then break end
  local score = redis.call('ZSCORE', KEYS[2], payload)
  redis.call('ZREM', KEYS[2], payload)
  if not take(payload, false) then
    redis.call('ZADD', KEYS[2], score, payload)
    break
  end
end
aside_max = aside_max + aside
while may_go_on() do
  if crashes_known then
    local payload = redis.call('LINDEX', KEYS[1], 0)
    if not payload or not take(payload, true) then break end
    redis.call('LPOP', KEYS[1])
  else
    local count = math.min(max - #filed / 2, LOOKS_MAX - aside)
    local payloads = redis.call('LPOP', KEYS[1], count)
    if not payloads then break end
    for _, payload in ipairs(payloads) do take(payload, true) end
    if #payloads < count then break end
  end
end
for i = 1, #filed, 1000 do
  redis.call('HSET', KEYS[3], unpack(filed, i, math.min(i + 999, #filed)))
end

if hosts_matter then
  for i = 9, #ARGV, 2 do
    local state = host_state(KEYS[9], ARGV[i], now)
    if (state.ends or 0) > now or own_hold(state, ARGV[1], now) then table.insert(reply[5], ARGV[i]) end
  end
  save_hosts(KEYS[9], now)
  if aside > 0 then
    reply[3] = 1
    redis.call('HINCRBY', KEYS[10], 'held', aside)
  end
  -- With a rate every host that was ever asked has an entry: those that say nothing any more go by and by.
  if step > 0 then
    for _, host in ipairs(redis.call('HRANDFIELD', KEYS[9], 4)) do host_state(KEYS[9], host, now) end
    save_hosts(KEYS[9], now)
  end
end
local next_due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if next_due then reply[2] = math.max(0, tonumber(next_due) - now) end
return reply
