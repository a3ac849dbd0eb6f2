-- A clock that was set back by more than a second would keep a job that waits for two seconds waiting for an hour more: what waits
-- moves with it, so many of `delayed` with each heartbeat, as 200,000 at once would take 0.7 s. What comes into it meanwhile may be
-- moved as well, and is looked at early then.
local SHIFTED_MAX = 10000

local function shift_some()
  local shift_ms = tonumber(redis.call('HGET', meta_key, 'shift_ms'))
  if not shift_ms then return end
  local from = tonumber(redis.call('HGET', meta_key, 'shift_from')) or '-inf'
  local waiting = redis.call('ZRANGE', delayed_key, from, '+inf', 'BYSCORE', 'LIMIT', 0, SHIFTED_MAX, 'WITHSCORES')
  local last = waiting[#waiting]
  for i = 1, #waiting, 2 do waiting[i], waiting[i + 1] = tonumber(waiting[i + 1]) - shift_ms, waiting[i] end
  for i = 1, #waiting, 1000 do redis.call('ZADD', delayed_key, 'XX', unpack(waiting, i, math.min(i + 999, #waiting))) end
  -- Others may have the score of the last one; those that were moved have none that is as high.
  if #waiting < 2 * SHIFTED_MAX then redis.call('HDEL', meta_key, 'shift_ms', 'shift_from') else redis.call('HSET', meta_key, 'shift_from', last) end
end

-- Marks that somebody is alive, and keeps the leases in `workers` honest.
-- Nothing ticked for longer than half a lease: nobody could renew (Redis was away, or its clock jumped), so everybody
-- gets a whole lease from now before anyone is taken for dead. An expiry further away than a lease comes from a clock
-- that was set back: clamped, or its owner's jobs would stay for as long as the clock was off.
local function tick(now, lease_ms)
  local last = tonumber(redis.call('HGET', meta_key, 'tick')) or 0
  if now < last - 1000 then
    -- One that had not gone through all of them begins anew: some come too early then, and are looked at again.
    local before = tonumber(redis.call('HGET', meta_key, 'shift_ms')) or 0
    redis.call('HSET', meta_key, 'shift_ms', before + last - now, 'shift_from', '-inf', 'tick', now)
  end
  -- Caught: whatever somebody made of `delayed`, the lease is renewed.
  pcall(shift_some)
  if now - last > lease_ms / 2 then
    for _, w in ipairs(redis.call('ZRANGE', workers_key, 0, -1)) do
      redis.call('ZADD', workers_key, now + lease_ms, w)
    end
  else
    for _, w in ipairs(redis.call('ZRANGE', workers_key, '(' .. (now + lease_ms), '+inf', 'BYSCORE')) do
      redis.call('ZADD', workers_key, now + lease_ms, w)
    end
  end
  redis.call('HSET', meta_key, 'tick', now)
end
