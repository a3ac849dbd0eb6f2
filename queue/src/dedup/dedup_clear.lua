-- Forgets all links of some buckets.
-- Returns {how many links there were, level, split}
must_know_schema()
local level, split = dedup_growth(growth_key)
must_hold('set', unpack(KEYS, buckets_from))
local cleared = 0
for k = buckets_from, #KEYS, CLEARED_KEYS do
  local bucket_key = KEYS[k + CLEARED_BUCKET_KEY]
  cleared = cleared + redis.call('SCARD', bucket_key)
  redis.call('UNLINK', bucket_key)
end
if cleared > 0 then add_to(growth_key, 'count', -cleared) end
return {cleared, level, split}
