-- When somebody is to look for what can be forgotten.
local TIDY_EVERY_MS, TIDY_AGAIN_MS = 60000, 1000

local function tidy_is_due(now)
  local at = tonumber(redis.call('HGET', meta_key, 'tidy_at')) or 0
  -- Further ahead than that it is of a clock that was set back.
  return now >= at or at > now + 2 * TIDY_EVERY_MS
end
