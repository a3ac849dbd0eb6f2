-- Adds to a counter. One that somebody made a text of starts anew: no figure for people may keep a job from its place.
local function add_to(key, field, by)
  local result = redis.pcall('HINCRBY', key, field, by)
  if type(result) == 'table' and result.err then redis.call('HSET', key, field, by) end
end
