-- Strikes off a worker that holds nothing.
-- Returns {1}, or {0} when it still holds jobs: then its lease runs out and they are recovered
must_hold('zset', workers_key, workers_since_key)
must_hold('set', trials_key)
if redis.call('EXISTS', inflight_key) == 1 then return {0} end
redis.call('ZREM', workers_key, worker)
redis.call('ZREM', workers_since_key, worker)
redis.call('SREM', trials_key, worker)
redis.call('DEL', worker_key)
return {1}
