-- Splits buckets of digests (linear hashing; dedup/mod.rs explains it): half of each goes to the bucket one level up. The buckets
-- come from `split_told` on.
-- Returns {level, split} as they are then: others may have split the same buckets before, which is all right
must_know_schema()
local level, split = dedup_growth(growth_key)
if not dedup_is_at(growth_key, level_told, split_told) then return {level, split} end
must_hold('set', unpack(KEYS, buckets_from))
local step = 2 ^ level
for k = buckets_from, #KEYS, SPLIT_KEYS do
  local bucket_key, half_key = KEYS[k + SPLIT_BUCKET_KEY], KEYS[k + SPLIT_HALF_KEY]
  local stays, moves = {}, {}
  for _, member in ipairs(redis.call('SMEMBERS', bucket_key)) do
    -- A number here is a double, which holds 15 digits; they tell the lowest 15 bits.
    local half = math.floor((tonumber(string.sub(member, -15)) or 0) / step) % 2 == 1 and moves or stays
    half[#half + 1] = member
  end
  -- Both halves are written anew: members come in ascending order, and are appended, where each SREM moves half of the bucket.
  redis.call('DEL', bucket_key)
  in_parts('SADD', bucket_key, stays)
  in_parts('SADD', half_key, moves)
  split = split + 1
end
if split >= buckets_at_level_0 * step then level, split = level + 1, 0 end
redis.call('HSET', growth_key, 'level', level, 'split', split)
return {level, split}
