-- Shared by all scripts that need it. Time is Redis' own: the clocks of workers are never compared.
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

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

-- The same for a stream that is to be appended to: it has a last id, after which nothing comes.
local function must_take(stream)
  must_hold('stream', stream)
  local facts = redis.pcall('XINFO', 'STREAM', stream)
  for k = 1, #facts, 2 do
    if facts[k] == 'last-generated-id' and string.sub(facts[k + 1], 1, 20) == '18446744073709551615' then
      error({err = 'ERR ' .. stream .. ' has had its last possible id: nothing more can be appended'})
    end
  end
end

-- Whether a key that is not there by right, a batch's or that of a bucket of digests, can be changed as what it is.
local function holds(kind, key)
  return redis.call('TYPE', key).ok == kind
end

-- Adds to a counter. One that somebody made a text of starts anew: no figure for people may keep a job from its place.
local function add_to(key, field, by)
  local result = redis.pcall('HINCRBY', key, field, by)
  if type(result) == 'table' and result.err then redis.call('HSET', key, field, by) end
end

-- The id at the beginning of a payload, as imgq writes it. Every pattern of these scripts is linear in what it looks at: most
-- of it was written by strangers, and Redis does nothing else meanwhile.
local ID = '^{"id":"(' .. string.rep('%x', 32) .. ')"'

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

-- What a job's crashes are counted under: its id, or the digest of a payload that does not start with one.
local function crash_key(payload)
  return string.match(payload, ID) or redis.sha1hex(payload)
end

-- How far dedup's buckets have grown, and how many links are in them; dedup.rs explains it.
local function dedup_growth(meta)
  must_hold('hash', meta)
  local grown = redis.call('HMGET', meta, 'level', 'split', 'count')
  return tonumber(grown[1]) or 0, tonumber(grown[2]) or 0, tonumber(grown[3]) or 0
end

-- Whether a caller that chose buckets for this level and split chose the right ones.
local function dedup_is_at(meta, level, split)
  local level_now, split_now = dedup_growth(meta)
  return level_now == tonumber(level) and split_now == tonumber(split)
end

-- Marks that somebody is alive, and keeps the leases in `workers` honest.
-- Nothing ticked for longer than half a lease: nobody could renew (Redis was away, or its clock jumped), so everybody
-- gets a whole lease from now before anyone is taken for dead. An expiry further away than a lease comes from a clock
-- that was set back: clamped, or its owner's jobs would stay for as long as the clock was off.
-- The same clock would keep a job that waits for two seconds waiting for an hour more: what waits moves with it. That costs
-- a pass over `delayed` each time the clock is set back by more than a second, which is hardly ever.
local function tick(workers, meta, delayed, now, lease)
  local last = tonumber(redis.call('HGET', meta, 'tick')) or 0
  if now < last - 1000 then
    local waiting = redis.call('ZRANGE', delayed, 0, -1, 'WITHSCORES')
    for i = 1, #waiting, 2 do
      redis.call('ZADD', delayed, 'XX', tonumber(waiting[i + 1]) - (last - now), waiting[i])
    end
  end
  if now - last > lease / 2 then
    for _, w in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
      redis.call('ZADD', workers, now + lease, w)
    end
  else
    for _, w in ipairs(redis.call('ZRANGE', workers, '(' .. (now + lease), '+inf', 'BYSCORE')) do
      redis.call('ZADD', workers, now + lease, w)
    end
  end
  redis.call('HSET', meta, 'tick', now)
end

-- Records when a batch was done: sealed, and as many results as jobs, those that were purged left out.
local function finish_batch(batch, now)
  local b = redis.call('HMGET', batch, 'sealed', 'finished', 'enqueued', 'stored', 'rejected', 'failed', 'purged')
  if not b[1] or b[2] then return end
  local done = (tonumber(b[4]) or 0) + (tonumber(b[5]) or 0) + (tonumber(b[6]) or 0) + (tonumber(b[7]) or 0)
  if done >= (tonumber(b[3]) or 0) then redis.call('HSET', batch, 'finished', now) end
end
