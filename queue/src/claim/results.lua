-- How many results there may still be.

-- Trims results that every reader has taken that is waited for; where none of those there are is, the oldest. Without a reader nothing is.
local function trim_taken(now)
  local ms, number, readers = first_not_taken_by_any(now)
  if ms then
    trim(results_key, string.format('%.0f-%.0f', ms, number))
  elseif readers > 0 then
    trim(results_key, in_twos(redis.call('XINFO', 'STREAM', results_key))['last-generated-id'])
  end
end

-- Of so many jobs those whose results there is room for.
local function with_room_for_results(jobs, now)
  if results_max == 0 then return jobs end
  -- What this worker holds will be a result as well.
  local held = redis.call('HLEN', inflight_key)
  if redis.call('XLEN', results_key) + held + jobs > results_max then trim_taken(now) end
  return math.min(jobs, results_max - redis.call('XLEN', results_key) - held)
end
