-- Runs a command over a key with a list behind it, in parts: unpack fails near 8,000. What belongs together comes in twos.
local function in_parts(command, key, list)
  for from = 1, #list, 1000 do redis.call(command, key, unpack(list, from, math.min(from + 999, #list))) end
end
