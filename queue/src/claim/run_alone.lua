-- Says that a worker now runs this suspect and nothing else: if it dies now, the suspect did it.
-- Returns {1}, or {0} when the job is not this worker's any more
if redis.call('HEXISTS', inflight_key, field) == 0 then return {0} end
redis.call('HSET', worker_key, 'alone', field)
return {1}
