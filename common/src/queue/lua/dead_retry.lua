-- Puts dead jobs back on the queue, or drops them.
-- KEYS: 1 dead, 2 ready, 3 stats, then for each entry: its batch, the dedup bucket of its link
-- ARGV: 1 "retry" or "drop", then for each entry: id of the entry, reason, "1" when it has a batch, digest, payload
-- Returns the number of entries that were still there
--
-- A job that is retried leaves `failed` in the counters, and its link is in the queue again for dedup.
local moved = 0
for e = 0, (#ARGV - 1) / 5 - 1 do
  local a, batch, bucket = 2 + e * 5, KEYS[4 + e * 2], KEYS[5 + e * 2]
  if redis.call('XDEL', KEYS[1], ARGV[a]) == 1 then
    moved = moved + 1
    if ARGV[1] == 'retry' then
      redis.call('RPUSH', KEYS[2], ARGV[a + 4])
      redis.call('HSET', bucket, ARGV[a + 3], '')
      redis.call('HINCRBY', KEYS[3], 'failed', -1)
      if ARGV[a + 2] == '1' and redis.call('EXISTS', batch) == 1 then
        redis.call('HINCRBY', batch, 'failed', -1)
        redis.call('HINCRBY', batch, 'failed:' .. ARGV[a + 1], -1)
        redis.call('HDEL', batch, 'finished')
      end
    end
  end
end
return moved
