-- Forgets all links of some buckets.
-- KEYS: 1 growth of dedup, then buckets
-- Returns {how many links there were, level, split}
local level, split = dedup_growth(KEYS[1])
must_hold('set', unpack(KEYS, 2))
local cleared = 0
for k = 2, #KEYS do
  cleared = cleared + redis.call('SCARD', KEYS[k])
  redis.call('UNLINK', KEYS[k])
end
if cleared > 0 then add_to(KEYS[1], 'count', -cleared) end
return {cleared, level, split}
