-- Strikes off a worker that holds nothing.
-- KEYS: 1 workers, 2 inflight of the worker, 3 worker
-- ARGV: 1 worker
-- Returns 1, or 0 when it still holds jobs: then its lease runs out and they are recovered
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
