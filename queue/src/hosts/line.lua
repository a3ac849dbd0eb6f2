-- Where jobs stand in `delayed` that cannot start now, each host's in a line.

local parked = 0
-- Those that the line has no place for come back at about this pace, within ten minutes.
local LOOKS_A_MS, SPREAD_MAX = 1, 600000
local spread_ms

-- When a job that cannot start now is looked at again: a place of its own from `from` on, `step` ms after the last one's.
local function place_of(state, now, from, step)
  parked = parked + 1
  local at = math.max(state.next or 0, from)
  if at > from + PARK_MAX then
    -- The line is longer than that. Jobs come back spread over a time, and whoever comes first has the next place: the longer the more
    -- of them wait, or a million would be looked at again all the time.
    spread_ms = spread_ms or math.max(PARK_MAX / 2, math.min(redis.call('ZCARD', delayed_key) / LOOKS_A_MS, SPREAD_MAX))
    return from + PARK_MAX / 2 + math.floor((now % 1000000 * 7919 + parked * 104729) % spread_ms)
  end
  state.next = at + step
  return at
end
