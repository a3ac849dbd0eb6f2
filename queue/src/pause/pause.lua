-- Stops claiming by all workers, or lets them go on.
must_know_schema()
if is_paused then
  redis.call('HSET', meta_key, 'paused', 1)
else
  redis.call('HDEL', meta_key, 'paused')
end
return {'ok'}
