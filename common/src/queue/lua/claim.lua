-- Claims up to N jobs under the worker's lease: due delayed ones first, then from the front of the queue.
-- KEYS: 1 ready, 2 delayed, 3 inflight of the worker, 4 workers, 5 worker, 6 meta, 7 crashes, 8 results
-- ARGV: 1 worker, 2 claim number, 3 N (at most 1,000), 4 lease (ms), 5 the first 28 hex digits of ids to give out,
--       6 how many results there may be, 0 for any number
-- Returns {status, ms until the next delayed job is due or -1, then for each job: payload, crashes}
--   status "ok"; "paused"; "reaped": the worker is no longer registered; "stale": a later claim was here first;
--   "full": there are as many results as there may be, and their readers have not taken them
--
-- A job's field in the in-flight hash, "claim number.index", is its fencing token: settle acts only if it is there.
-- The number comes from the worker and only rises, so that no rollback of Redis can hand one out twice, and a claim
-- that timed out and runs late is refused.
local now = now_ms()
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {'reaped', -1} end
if tonumber(ARGV[2]) <= (tonumber(redis.call('HGET', KEYS[5], 'claim')) or 0) then return {'stale', -1} end
redis.call('HSET', KEYS[5], 'claim', ARGV[2])
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[4]), ARGV[1])
if redis.call('HGET', KEYS[6], 'paused') then return {'paused', -1} end

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
  if max <= 0 then return {'full', -1} end
end
local reply, filed = {'ok', -1}, {}
local crashes_known = redis.call('EXISTS', KEYS[7]) == 1

-- Takes a payload; false when the claim ends before it. A job that crashed its worker twice is claimed alone, so that
-- many workers share a group of suspects and none is blamed for another.
local function take(payload)
  local crashes = 0
  if crashes_known then
    crashes = tonumber(redis.call('HGET', KEYS[7], crash_key(payload))) or 0
    if crashes >= 2 and #filed > 0 then return false end
  end
  if string.sub(payload, 1, 1) ~= '{' and string.find(payload, '://', 1, true) then
    -- A bare URL: it gets its id here, so that it keeps it wherever it goes from now on.
    local url = string.match(payload, '^%s*(.-)%s*$')
    local id = ARGV[5] .. string.format('%04x', #filed / 2)
    payload = '{"id":"' .. id .. '","url":' .. string.gsub(cjson.encode(url), '\\/', '/') .. '}'
  end
  filed[#filed + 1] = ARGV[2] .. '.' .. (#filed / 2 + 1)
  filed[#filed + 1] = payload
  reply[#reply + 1] = payload
  reply[#reply + 1] = crashes
  if crashes >= 2 then max = 0 end
  return true
end

for _, payload in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, max)) do
  if #filed / 2 >= max or not take(payload) then break end
  redis.call('ZREM', KEYS[2], payload)
end
if crashes_known then
  while #filed / 2 < max do
    local payload = redis.call('LINDEX', KEYS[1], 0)
    if not payload or not take(payload) then break end
    redis.call('LPOP', KEYS[1])
  end
elseif #filed / 2 < max then
  for _, payload in ipairs(redis.call('LPOP', KEYS[1], max - #filed / 2) or {}) do take(payload) end
end
for i = 1, #filed, 1000 do
  redis.call('HSET', KEYS[3], unpack(filed, i, math.min(i + 999, #filed)))
end

local next_due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if next_due then reply[2] = math.max(0, tonumber(next_due) - now) end
return reply
