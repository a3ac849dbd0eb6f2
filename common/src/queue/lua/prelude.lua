-- Shared by all scripts that need it. Time is Redis' own: the clocks of workers are never compared.
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- What a job's crashes are counted under: its id, or the digest of a payload that does not start with one.
local function crash_key(payload)
  return string.match(payload, '^{"id":"(%x+)"') or redis.sha1hex(payload)
end

-- How far dedup's buckets have grown, and how many links are in them; dedup.rs explains it.
local function dedup_growth(meta)
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
