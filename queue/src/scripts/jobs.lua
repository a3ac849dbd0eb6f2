-- The id at the beginning of a payload, as imgq writes it. Every pattern of these scripts is linear in what it looks at: most
-- of it was written by strangers, and Redis does nothing else meanwhile.
local ID = '^{"id":"(' .. string.rep('%x', 32) .. ')"'

-- What a job's crashes are counted under: its id, or the digest of a payload that does not start with one.
local function crash_key(payload)
  return string.match(payload, ID) or redis.sha1hex(payload)
end
