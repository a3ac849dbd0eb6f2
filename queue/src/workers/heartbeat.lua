-- Renews a worker's lease, names workers whose lease is over, and now and then notes what the queue is like.
-- KEYS: 1 workers, 2 worker, 3 meta, 4 delayed, 5 ready, 6 dead, 7 stats, 8 fine and 9 coarse history
-- ARGV: 1 worker, 2 lease (ms), then facts: name, value
-- Returns {1 when the worker is registered else 0, ms until the next lease ends or -1, expired workers…}
must_hold('zset', KEYS[1])
must_hold('hash', KEYS[2], KEYS[3])
local now = now_ms()
local lease = tonumber(ARGV[2])
tick(KEYS[1], KEYS[3], KEYS[4], now, lease)
local alive = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
if alive == 1 then
  redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
  redis.call('HSET', KEYS[2], 'seen', now, unpack(ARGV, 3))
end
-- Eight at a time: each costs a script of its own, and the next heartbeat of anybody takes the next eight.
local reply = {alive, -1, unpack(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 8))}
local next_end = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
if next_end then reply[2] = tonumber(next_end) - now end

-- A line of history: when, how many are ready, delayed and dead, and the totals of stats.
local function sample(field, list, every, at_most)
  local last = tonumber(redis.call('HGET', KEYS[3], field)) or 0
  -- Before the last one: the clock was set back.
  if now >= last and now < last + every then return end
  redis.call('HSET', KEYS[3], field, now)
  local line = {now, redis.call('LLEN', KEYS[5]), redis.call('ZCARD', KEYS[4]), redis.call('XLEN', KEYS[6])}
  for _, total in ipairs({'stored', 'rejected', 'failed', 'bytes'}) do
    line[#line + 1] = redis.call('HGET', KEYS[7], total) or 0
  end
  redis.call('RPUSH', list, table.concat(line, ' '))
  redis.call('LTRIM', list, -at_most, -1)
end
-- Last and caught: whatever somebody made of these keys, the lease is renewed.
pcall(sample, 'sampled', KEYS[8], 10000, 720)
pcall(sample, 'sampled_coarse', KEYS[9], 300000, 2304)
return reply
