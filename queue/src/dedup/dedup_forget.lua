-- Forgets links, so that they can be enqueued again.
-- KEYS: 1 growth of dedup, then the bucket of each link
-- ARGV: 1 and 2 level and split that buckets were chosen for, then the digest of each link
-- Returns {how many were known, level, split}; -1 when level or split are others: then nothing was changed
local level, split = dedup_growth(KEYS[1])
if not dedup_is_at(KEYS[1], ARGV[1], ARGV[2]) then return {-1, level, split} end
must_hold('set', unpack(KEYS, 2))
local forgotten = 0
for link = 1, #KEYS - 1 do forgotten = forgotten + redis.call('SREM', KEYS[1 + link], ARGV[2 + link]) end
if forgotten > 0 then add_to(KEYS[1], 'count', -forgotten) end
return {forgotten, level, split}
