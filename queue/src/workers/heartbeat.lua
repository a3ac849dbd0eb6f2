-- Renews a worker's lease, names workers whose lease is over, and now and then notes what the queue is like.
-- Behind the arguments come facts about the worker: name, value, …
-- Returns {1 when the worker is registered else 0, ms until the next lease ends or -1, how many leases are over, 1 when somebody is to
-- look for what can be forgotten else 0, expired workers…}
must_hold('zset', workers_key, workers_since_key)
must_hold('hash', worker_key, meta_key)
local now = now_ms()
tick(now, lease_ms)
local alive = redis.call('ZSCORE', workers_key, worker) and 1 or 0
if alive == 1 then
  redis.call('ZADD', workers_key, now + lease_ms, worker)
  -- One that an older imgq registered is not in it, and one that did so before the clock was set back has a time to come.
  redis.call('ZADD', workers_since_key, 'LT', now, worker)
  redis.call('HSET', worker_key, 'seen', now, unpack(ARGV, facts_from))
end
-- Some at a time, as each costs a script of its own; of many those at a place that the caller drew, so that a fleet that looks at once
-- does not recover the same ones.
local over = redis.call('ZCOUNT', workers_key, '-inf', now)
local first = over > expired_max and pick % (over - expired_max + 1) or 0
local reply = {alive, -1, over, tidy_is_due(now) and 1 or 0, unpack(redis.call('ZRANGE', workers_key, '-inf', now, 'BYSCORE', 'LIMIT', first, expired_max))}
local next_end = redis.call('ZRANGE', workers_key, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
if next_end then reply[2] = tonumber(next_end) - now end

-- A line of history: when, how many are ready, delayed and dead, and the totals of stats.
local function sample(field, list_key, every_ms, lines_max)
  local last = tonumber(redis.call('HGET', meta_key, field)) or 0
  -- Before the last one: the clock was set back.
  if now >= last and now < last + every_ms then return end
  redis.call('HSET', meta_key, field, now)
  local line = {now, redis.call('LLEN', ready_key), redis.call('ZCARD', delayed_key), redis.call('XLEN', dead_key)}
  for _, total in ipairs({'stored', 'rejected', 'failed', 'bytes'}) do
    line[#line + 1] = redis.call('HGET', stats_key, total) or 0
  end
  redis.call('RPUSH', list_key, table.concat(line, ' '))
  redis.call('LTRIM', list_key, -lines_max, -1)
end
-- Last and caught: whatever somebody made of these keys, the lease is renewed.
pcall(sample, 'sampled', history_fine_key, 10000, 720)
pcall(sample, 'sampled_coarse', history_coarse_key, 300000, 2304)
return reply
