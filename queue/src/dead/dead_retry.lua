-- Puts dead jobs back on the queue, or drops them.
-- KEYS: 1 dead, 2 ready, 3 stats, 4 growth of dedup, then for each entry: its batch, the dedup bucket of its link
-- ARGV: 1 "retry" or "drop", 2 and 3 level and split that buckets were chosen for, then for each entry: id of the entry, reason,
--       "1" when it has a batch, digest, payload
-- Returns {the number of entries that were still there, level, split}; -1 when level or split are others: then nothing was changed
--
-- A job that is retried leaves `failed` in the counters, and its link is in the queue again for dedup.
local level, split = dedup_growth(KEYS[4])
if not dedup_is_at(KEYS[4], ARGV[2], ARGV[3]) then return {-1, level, split} end
must_hold('stream', KEYS[1])
must_hold('list', KEYS[2])
must_hold('hash', KEYS[3])
for k = 5, #KEYS, 2 do
  must_hold('hash', KEYS[k])
  must_hold('set', KEYS[k + 1])
end
local moved = 0
for e = 0, (#ARGV - 3) / 5 - 1 do
  local a, k = 4 + e * 5, 5 + e * 2
  if redis.call('XDEL', KEYS[1], ARGV[a]) == 1 then
    moved = moved + 1
    if ARGV[1] == 'retry' then
      redis.call('RPUSH', KEYS[2], ARGV[a + 4])
      if redis.call('SADD', KEYS[k + 1], ARGV[a + 3]) == 1 then add_to(KEYS[4], 'count', 1) end
      add_to(KEYS[3], 'failed', -1)
      add_to(KEYS[3], 'failed:' .. ARGV[a + 1], -1)
      if ARGV[a + 2] == '1' and redis.call('EXISTS', KEYS[k]) == 1 then
        add_to(KEYS[k], 'failed', -1)
        add_to(KEYS[k], 'failed:' .. ARGV[a + 1], -1)
        local host = 'host:' .. (host_of(ARGV[a + 4]) or '')
        if redis.call('HEXISTS', KEYS[k], host) == 1 then add_to(KEYS[k], host, -1) end
        redis.call('HDEL', KEYS[k], 'finished')
      end
    end
  end
end
return {moved, level, split}
