-- Claims up to N jobs under the worker's lease: due delayed ones first, then from the front of the queue.
-- KEYS: 1 ready, 2 delayed, 3 inflight of the worker, 4 workers, 5 worker, 6 meta, 7 crashes
-- ARGV: 1 worker, 2 claim number, 3 N (at most 1,000), 4 lease (ms), 5 the first 28 hex digits of ids to give out
-- Returns {status, ms until the next delayed job is due or -1, then for each job: payload, crashes}
--   status "ok"; "paused"; "reaped": the worker is no longer registered; "stale": a later claim was here first
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

local max = tonumber(ARGV[3])
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
