-- Puts a job where it waits for its time. One that waits there already, the same to the last byte, was pushed twice, and a set
-- would keep one of the two: blanks behind it, two for a digit of a number, tell them apart and mean nothing in JSON. Each job of a
-- call comes with a number of its own, so that one try more is enough.
local function put_to_wait(delayed, at, payload, number)
  local member = payload
  while redis.call('ZADD', delayed, 'NX', at, member) == 0 do
    number = number + 1
    member = payload .. string.gsub(string.format('%.0f', number), '%d', function(digit)
      local high, low = math.floor(tonumber(digit) / 4) + 1, tonumber(digit) % 4 + 1
      return string.sub(' \t\n\r', high, high) .. string.sub(' \t\n\r', low, low)
    end)
  end
end

-- Puts many to wait: times and payloads in turn, which get numbers from `number` on. At once where they are all different.
local function put_all_to_wait(delayed, waiting, number)
  for from = 1, #waiting, 1000 do
    local to = math.min(from + 999, #waiting)
    local payloads, is_double = {}, false
    for i = from + 1, to, 2 do
      is_double = is_double or payloads[waiting[i]]
      payloads[waiting[i]] = true
      payloads[#payloads + 1] = waiting[i]
    end
    for _, at in ipairs(not is_double and redis.call('ZMSCORE', delayed, unpack(payloads)) or {}) do is_double = is_double or at end
    if is_double then
      for i = from, to, 2 do put_to_wait(delayed, waiting[i], waiting[i + 1], number + i) end
    else
      redis.call('ZADD', delayed, unpack(waiting, from, to))
    end
  end
end
