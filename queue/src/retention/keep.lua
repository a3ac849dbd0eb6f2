-- How long (ms) what ended is kept: 'batches', 'results', 'dead', or what a reader that stands still has not taken: 'readers'. Nil for ever.
local function keep_ms(what)
  local ms = tonumber(redis.call('HGET', meta_key, 'keep_' .. what .. '_ms')) or KEEP_BY_DEFAULT_MS[what]
  return ms > 0 and ms or nil
end
