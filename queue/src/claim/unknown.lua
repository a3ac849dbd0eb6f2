-- Jobs that this worker does not know, as they are of a newer version or of another kind: they are left to those who do.

local UNKNOWN_WAIT_MS = 5000
-- Of many 5,000 a second are looked at again, however many they are: at the 12 µs that a held job costs, 6 % of a core. Those of a second
-- come together: a worker that has nothing to do wakes for each time that one is due.
local UNKNOWN_APART_MS, UNKNOWN_STEP_MS = 0.2, 1000
-- What they were that were met, each once and some at most; when the next one is looked at.
local UNKNOWN_SAID_MAX = 5
local unknown_said, unknown_line = {}, nil

-- Always true, for whoever finds a job that is not known.
local function say_unknown(what)
  for _, said in ipairs(unknown_said) do
    if said == what then return true end
  end
  if #unknown_said < UNKNOWN_SAID_MAX then unknown_said[#unknown_said + 1] = what end
  return true
end

-- Whether a payload may say its version or kind. Names of fields may be written with escapes; what imgq writes is told by this alone. Three
-- texts that are looked for, 0.8 µs for a job; one pattern for all of them took 2.5.
local function may_be_unknown(payload)
  if string.byte(payload) ~= 123 or #payload > PAYLOAD_BYTES_MAX then return false end
  local find = string.find
  return find(payload, '"v', 1, true) or find(payload, '"k', 1, true) or find(payload, '"\\', 1, true)
end

-- What is wrong with a field is for the worker to find: only what somebody else may be able to read is left to others.
local function is_unknown(payload)
  local fine, job = pcall(cjson.decode, (string.match(payload, '^.*}')))
  if not fine or type(job) ~= 'table' then return false end
  local version, kind = job.v, job.kind
  if type(version) == 'number' and version > schema and version < 4294967296 and math.floor(version) == version then
    return say_unknown(string.format('version %.0f', version))
  end
  if type(kind) == 'string' and not string.find(' ' .. kinds .. ' ', ' ' .. kind .. ' ', 1, true) then
    return say_unknown('kind "' .. string.gsub(string.sub(kind, 1, 40), '[^%w_.-]', '?') .. '"')
  end
  return false
end

local unknown_at

-- When a job is looked at again: those of one call at the same time, where no line of them is that long.
local function place_of_unknown(now)
  if not unknown_line then
    unknown_line = tonumber(redis.call('HGET', meta_key, 'unknown_line')) or 0
    -- Further ahead than any number of them reaches: of a clock that was set back.
    if unknown_line > now + 3600000 then unknown_line = 0 end
    unknown_at = now + UNKNOWN_WAIT_MS
    if unknown_line > unknown_at then unknown_at = math.ceil(unknown_line / UNKNOWN_STEP_MS) * UNKNOWN_STEP_MS end
    unknown_line = math.max(unknown_line, now + UNKNOWN_WAIT_MS)
  end
  unknown_line = unknown_line + UNKNOWN_APART_MS
  return unknown_at
end

-- For the next claim, and for people.
local function save_unknown(now)
  if not unknown_line then return end
  redis.call('HSET', meta_key, 'unknown', table.concat(unknown_said, ', '), 'unknown_seen', now, 'unknown_line', string.format('%.1f', unknown_line))
end
