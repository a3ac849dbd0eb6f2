-- Where jobs stand in `delayed` that cannot start now, each host's in a line.

local parked = 0
local SPREAD_MAX = 600000

-- When a job that cannot start now is looked at again: a place of its own from `from` on, `step` ms after the last one's.
local function place_of(state, now, from, step)
  parked = parked + 1
  local at = math.max(state.next or 0, from)
  if at > from + PARK_MAX then
    -- The line is longer than that. Jobs come back spread over a time, and whoever comes first has the next place: over as long as those
    -- that found no place lately would take, or a million would be looked at again all the time.
    if (state.over_since or 0) + PARK_MAX < now then state.over, state.over_since = 0, now end
    state.over = (state.over or 0) + 1
    local spread_ms = math.max(PARK_MAX / 2, math.min(state.over * step, SPREAD_MAX))
    return from + PARK_MAX / 2 + math.floor((now % 1000000 * 7919 + parked * 104729) % spread_ms)
  end
  state.next = at + step
  return at
end
