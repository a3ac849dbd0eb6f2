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
