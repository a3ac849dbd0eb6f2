-- Marks that somebody is alive, and keeps the leases in `workers` honest.
-- Nothing ticked for longer than half a lease: nobody could renew (Redis was away, or its clock jumped), so everybody
-- gets a whole lease from now before anyone is taken for dead. An expiry further away than a lease comes from a clock
-- that was set back: clamped, or its owner's jobs would stay for as long as the clock was off.
-- The same clock would keep a job that waits for two seconds waiting for an hour more: what waits moves with it. That costs
-- a pass over `delayed` each time the clock is set back by more than a second, which is hardly ever.
local function tick(now, lease_ms)
  local last = tonumber(redis.call('HGET', meta_key, 'tick')) or 0
  if now < last - 1000 then
    local waiting = redis.call('ZRANGE', delayed_key, 0, -1, 'WITHSCORES')
    for i = 1, #waiting, 2 do
      redis.call('ZADD', delayed_key, 'XX', tonumber(waiting[i + 1]) - (last - now), waiting[i])
    end
  end
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
