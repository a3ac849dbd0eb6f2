-- Readers of the results: each consumer group of the stream is one.

-- Names and values in turn, by name.
local function in_twos(flat)
  local facts = {}
  for i = 1, #flat, 2 do facts[flat[i]] = flat[i + 1] end
  return facts
end

local function readers_of_results()
  local groups = redis.call('EXISTS', results_key) == 1 and redis.call('XINFO', 'GROUPS', results_key) or {}
  for g, flat in ipairs(groups) do groups[g] = in_twos(flat) end
  return groups
end

-- The first entry that a reader has not taken, as its ms and its number: the oldest that it was given and did not acknowledge, else
-- the one after the last that it was given.
local function first_not_taken(group)
  local first = group.pending > 0 and redis.call('XPENDING', results_key, group.name)[2] or group['last-delivered-id']
  local ms, number = string.match(first, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number) + (group.pending > 0 and 0 or 1)
end

local function position_of(group)
  return group['last-delivered-id'] .. '/' .. group.pending
end

-- Since when (ms) a reader has stood where it stands, with results before it that it has not taken; nil where nobody has seen it so.
local function stands_since(group)
  local position, since = string.match(redis.call('HGET', meta_key, 'reader:' .. group.name) or '', '^(%S+) (%d+)$')
  return position == position_of(group) and tonumber(since) or nil
end

-- Whether a reader has stood still for so long that results are not kept for it any more.
local function is_silent(group, now)
  local keep, since = keep_ms('readers'), stands_since(group)
  return keep and since and now - since > keep
end

-- The first entry that one of the readers has not taken that results wait for, as its ms and its number, nil where there is none; and how
-- many readers there are.
local function first_not_taken_by_any(now)
  local first_ms, first_number
  local readers = readers_of_results()
  for _, group in ipairs(readers) do
    local ms, number = first_not_taken(group)
    local is_first = not first_ms or ms < first_ms or ms == first_ms and number < first_number
    if is_first and not is_silent(group, now) then first_ms, first_number = ms, number end
  end
  return first_ms, first_number, #readers
end
