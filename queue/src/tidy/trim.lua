-- Removes entries of a stream that come before the entry `first`, a bounded number in one go: whole nodes while there are any, and then
-- what is less than one. Returns how many went.
local TRIMMED_MAX = 10000

local function trim(stream, first)
  local trimmed = redis.call('XTRIM', stream, 'MINID', '~', first, 'LIMIT', TRIMMED_MAX)
  if trimmed == 0 then trimmed = redis.call('XTRIM', stream, 'MINID', '=', first) end
  return trimmed
end
