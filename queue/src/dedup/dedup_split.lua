-- Splits buckets of digests (linear hashing; dedup.rs explains it): half of each goes to the bucket one level up.
-- KEYS: 1 growth of dedup, then for each bucket from `split` on: itself, and the one that its half goes to
-- ARGV: 1 level, 2 split, as the caller knows them, 3 number of buckets at level 0
-- Returns {level, split} as they are then: others may have split the same buckets before, which is all right
local level, split = dedup_growth(KEYS[1])
if not dedup_is_at(KEYS[1], ARGV[1], ARGV[2]) then return {level, split} end
must_hold('set', unpack(KEYS, 2))
local step = 2 ^ level
for k = 2, #KEYS, 2 do
  local stays, moves = {}, {}
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[k])) do
    -- A number here is a double, which holds 15 digits; they tell the lowest 15 bits.
    local half = math.floor((tonumber(string.sub(member, -15)) or 0) / step) % 2 == 1 and moves or stays
    half[#half + 1] = member
  end
  -- Both halves are written anew: members come in ascending order, and are appended, where each SREM moves half of the bucket.
  redis.call('DEL', KEYS[k])
  for key, half in pairs({[KEYS[k]] = stays, [KEYS[k + 1]] = moves}) do
    -- unpack fails near 8,000.
    for from = 1, #half, 1000 do redis.call('SADD', key, unpack(half, from, math.min(from + 999, #half))) end
  end
  split = split + 1
end
if split >= tonumber(ARGV[3]) * step then level, split = level + 1, 0 end
redis.call('HSET', KEYS[1], 'level', level, 'split', split)
return {level, split}
