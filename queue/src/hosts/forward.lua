-- Bringing jobs forward that wait for their host, where a start was not needed.

-- Jobs that wait in `delayed` for a time soon, read as far as somebody looks, and those that are to come forward.
local LINE_BYTES_MAX = 524288
local line, line_bytes, line_is_whole, cursors, forward = {}, 0, false, {}, {}

local function in_line(k, now)
  while k > #line and not line_is_whole and line_bytes < LINE_BYTES_MAX do
    local page = redis.call('ZRANGE', delayed_key, '(' .. now, now + PARK_MAX, 'BYSCORE', 'LIMIT', #line, 20)
    for _, payload in ipairs(page) do
      line[#line + 1] = payload
      line_bytes = line_bytes + #payload
    end
    line_is_whole = #page < 20
  end
  return line[k]
end

-- The next ones in a host's line come forward, or a list that was downloaded before would be gone through at the host's rate.
local function bring_forward(host, now)
  local k, found = cursors[host] or 0, 0
  local last = k + 20
  while found < 2 and k < last do
    k = k + 1
    local payload = in_line(k, now)
    if not payload then break end
    if host_as_written(payload) == host and not string.find(payload, '"attempts"', 1, true) then
      forward[payload] = true
      found = found + 1
    end
  end
  cursors[host] = k
end

local function move_forward(now)
  for payload in pairs(forward) do redis.call('ZADD', delayed_key, 'XX', now, payload) end
end
