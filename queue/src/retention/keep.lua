-- How long (ms) what ended is kept: 'batches', 'results', 'dead', or what a reader that stands still has not taken: 'readers'. Nil for ever.
local KEEP_MS_MAX = 1000000000000000

local function keep_ms(what)
  local ms = tonumber(redis.call('HGET', meta_key, 'keep_' .. what .. '_ms'))
  -- What is no time a person wrote.
  if not ms or ms ~= math.floor(ms) or ms < 0 then ms = KEEP_BY_DEFAULT_MS[what] end
  return ms > 0 and math.min(ms, KEEP_MS_MAX) or nil
end
