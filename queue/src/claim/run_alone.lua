-- Says that a worker now runs this suspect and nothing else: if it dies now, the suspect did it.
-- KEYS: 1 inflight of the worker, 2 worker
-- ARGV: 1 field of the suspect
-- Returns 1, or 0 when the job is not this worker's any more
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'alone', ARGV[1])
return 1
