-- What is remembered of the crashes of a job: how many of its workers died of what may have been its doing; with how many other
-- suspects it may be in flight in one worker, itself among them; and in how many deaths it was there that were nobody's doing.
-- 'CRASHES', or where one of the others has to be said, 'CRASHES SUSPECTS DEATHS'.

-- A job with so many crashes is a suspect; with one more its worker does not run it.
local SUSPECT = 2

local function read_crashes(text)
  local crashes, suspects, deaths = string.match(text or '', '^(%d+) ?(%d*) ?(%d*)$')
  return tonumber(crashes) or 0, tonumber(suspects) or 1, tonumber(deaths) or 0
end

local function crashes_of(payload)
  return read_crashes(redis.call('HGET', crashes_key, crash_key(payload)))
end
