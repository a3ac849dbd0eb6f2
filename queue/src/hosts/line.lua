-- Where jobs stand in `delayed` that cannot start now, each host's in a line.

-- Between the first looks at jobs that waited for the end of a hold: 500 a second, until the host's pace is known.
local HOLD_STEP = 2
local parked = 0

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
