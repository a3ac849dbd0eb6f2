-- The queue at one instant: no job is counted twice or missed between two reads.
-- Returns {ready, delayed, dead, results, counters, facts, names of workers, time, batches, workers}, of each batch that was asked for
-- its progress, of each worker how many jobs it holds and its facts
must_hold('list', ready_key)
must_hold('zset', delayed_key, workers_key)
must_hold('stream', dead_key, results_key)
must_hold('hash', stats_key, meta_key)
local batches, workers = {}, {}
local k = parts_from
for n = 1, batches_asked do
  must_hold('hash', KEYS[k + PROGRESS_BATCH_KEY])
  batches[n] = redis.call('HMGET', KEYS[k + PROGRESS_BATCH_KEY], 'started', 'enqueued', 'stored', 'rejected', 'failed', 'purged')
  k = k + PROGRESS_KEYS
end
while k <= #KEYS do
  must_hold('hash', KEYS[k + WORKER_INFLIGHT_KEY], KEYS[k + WORKER_WORKER_KEY])
  workers[#workers + 1] = redis.call('HLEN', KEYS[k + WORKER_INFLIGHT_KEY])
  workers[#workers + 1] = redis.call('HGETALL', KEYS[k + WORKER_WORKER_KEY])
  k = k + WORKER_KEYS
end
return {
  redis.call('LLEN', ready_key), redis.call('ZCARD', delayed_key), redis.call('XLEN', dead_key), redis.call('XLEN', results_key),
  redis.call('HGETALL', stats_key), redis.call('HGETALL', meta_key), redis.call('ZRANGE', workers_key, 0, -1), redis.call('TIME'),
  batches, workers,
}
