-- Renews a worker's lease, and names workers whose lease is over.
-- KEYS: 1 workers, 2 worker, 3 meta, 4 delayed
-- ARGV: 1 worker, 2 lease (ms), then facts: name, value
-- Returns {1 when the worker is registered else 0, ms until the next lease ends or -1, expired workers…}
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
return reply
