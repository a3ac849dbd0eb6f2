-- How many results there may still be.

-- The first entry that a reader has not taken, as its ms and its number: the oldest that it was given and did not acknowledge, else
-- the one after the last that it was given.
local function first_not_taken(group)
  local first = group.pending > 0 and redis.call('XPENDING', results_key, group.name)[2] or group['last-delivered-id']
  local ms, number = string.match(first, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number) + (group.pending > 0 and 0 or 1)
end

-- Trims results that every reader has taken: each consumer group of the stream is a reader. Without one nothing is.
local function trim_taken()
  local exists = redis.call('EXISTS', results_key) == 1
  local keep_ms, keep_number
  for _, flat in ipairs(exists and redis.call('XINFO', 'GROUPS', results_key) or {}) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    local ms, number = first_not_taken(group)
    if not keep_ms or ms < keep_ms or (ms == keep_ms and number < keep_number) then keep_ms, keep_number = ms, number end
  end
  if not keep_ms then return end
  local keep = string.format('%.0f-%.0f', keep_ms, keep_number)
  -- Whole nodes first, a bounded number in one go; what is then left is less than one node.
  if redis.call('XTRIM', results_key, 'MINID', '~', keep, 'LIMIT', 10000) == 0 then
    redis.call('XTRIM', results_key, 'MINID', '=', keep)
  end
end

-- Of so many jobs those whose results there is room for.
local function with_room_for_results(jobs)
  if results_max == 0 then return jobs end
  -- What this worker holds will be a result as well.
  local held = redis.call('HLEN', inflight_key)
  if redis.call('XLEN', results_key) + held + jobs > results_max then trim_taken() end
  return math.min(jobs, results_max - redis.call('XLEN', results_key) - held)
end
