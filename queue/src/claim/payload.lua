-- What an element of the queue is as a payload, and its id where nobody gave it one.

-- May stand in front of a payload that was pushed by hand, and blanks on its both sides.
local BYTE_ORDER_MARK = '\239\187\191'
local ids_given = 0

-- An id for a job that nobody gave one: from here on it keeps it wherever it goes.
local function new_id()
  ids_given = ids_given + 1
  return ids_begin .. string.format('%04x', ids_given)
end

local function with_id(id, rest)
  return '{"id":"' .. id .. '",' .. rest
end

-- Text as JSON. A slash needs no escape, and links are full of them.
local function json(text)
  return (string.gsub(cjson.encode(text), '\\/', '/'))
end

-- A payload without what may stand around it where it was written by hand.
local function trimmed(payload)
  local from = string.match(payload, '^%s*()')
  if string.sub(payload, from, from + 2) == BYTE_ORDER_MARK then from = string.match(payload, '^%s*()', from + 3) end
  return string.sub(payload, from, (string.match(payload, '^.*%S()') or 1) - 1)
end

-- What an element of the queue is as a payload: JSON that begins with a brace, or text that nobody can read. `Job::read` says
-- the same of each, and one table in the tests holds both to it. Then how many bytes were looked at beyond both.
local function payload_of(element)
  local payload = element
  if #element <= PAYLOAD_BYTES_MAX then
    if string.byte(payload) ~= 123 then payload = trimmed(payload) end
    if string.byte(payload) ~= 123 and string.find(payload, '://', 1, true) then
      payload = with_id(new_id(), '"url":' .. json(payload) .. '}')
    end
    if #payload <= PAYLOAD_BYTES_MAX then return payload, 0 end
  end
  -- Whoever reads it says so; nothing behind this has to bear its size.
  local beginning = string.gsub(string.sub(element, 1, 200), '[^ -~]', '?')
  local id = string.match(element, ID) or new_id()
  return with_id(id, '"oversized":' .. #payload .. ',"url":' .. json(beginning) .. '}'), #payload
end
