-- Forgets links, so that they can be enqueued again.
-- Returns {'ok', how many were known}, or what `stale` says: then nothing was changed
must_know_schema()
if not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
must_hold('set', unpack(KEYS, links_keys_from))
local forgotten, k = 0, links_keys_from
for a = links_from, #ARGV, LINK_ARGS do
  forgotten = forgotten + redis.call('SREM', KEYS[k + LINK_BUCKET_KEY], ARGV[a + LINK_DIGEST])
  k = k + LINK_KEYS
end
if forgotten > 0 then add_to(growth_key, 'count', -forgotten) end
return {'ok', forgotten}
