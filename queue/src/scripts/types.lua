-- Raises an error that names the key, where one holds something else than imgq keeps there. A script is not rolled back when a
-- command fails in its middle: so each asks first for every key that it is going to change, and changes all or nothing.
local function must_hold(kind, ...)
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
      error({err = 'WRONGTYPE ' .. key .. ' holds a ' .. found .. ', where imgq keeps a ' .. kind})
    end
  end
end

-- Whether a key that is not there by right, a batch's or that of a bucket of digests, can be changed as what it is.
local function holds(kind, key)
  return redis.call('TYPE', key).ok == kind
end
