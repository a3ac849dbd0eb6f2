-- Looks through entries of a stream, between two ids and from either end, for those that have all of these values. It ends after
-- `looked_at_max` of them or 1 MB, and when it has found `found_max`.
-- Returns {the last one that was looked at or '', 1 when there are no more or 0, those that were found as XRANGE tells them}
--
-- Lua gets a copy of every value that is read, which is most of what this costs Redis.
local BYTES_MAX = 1048576
-- So few that they are no more than some MB, however large each is.
local READ_AT_ONCE = 50
local command = newest_first and 'XREVRANGE' or 'XRANGE'
local wanted, conditions = {}, 0
for a = conditions_from, #ARGV, CONDITION_ARGS do
  wanted[ARGV[a + CONDITION_FIELD]] = ARGV[a + CONDITION_VALUE]
  conditions = conditions + 1
end

local bytes = 0
local function is_wanted(fields)
  local met = 0
  for f = 1, #fields, 2 do
    local value = fields[f + 1]
    bytes = bytes + #value
    if wanted[fields[f]] == value then met = met + 1 end
  end
  return met >= conditions
end

local found, last, looked_at, is_end = {}, '', 0, 0
while is_end == 0 and looked_at < looked_at_max and #found < found_max and bytes < BYTES_MAX do
  local page = redis.call(command, stream_key, from, to, 'COUNT', READ_AT_ONCE)
  if #page < READ_AT_ONCE then is_end = 1 end
  for _, entry in ipairs(page) do
    if #found == found_max then
      is_end = 0
      break
    end
    looked_at, last = looked_at + 1, entry[1]
    if is_wanted(entry[2]) then found[#found + 1] = entry end
  end
  from = '(' .. last
end
return {last, is_end, found}
