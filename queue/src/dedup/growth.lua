-- How far dedup's buckets have grown, and how many links are in them; dedup/mod.rs explains it.
local function dedup_growth(growth_key)
  must_hold('hash', growth_key)
  local grown = redis.call('HMGET', growth_key, 'level', 'split', 'count')
  return tonumber(grown[1]) or 0, tonumber(grown[2]) or 0, tonumber(grown[3]) or 0
end

-- Whether a caller that chose buckets for this level and split chose the right ones.
local function dedup_is_at(growth_key, level, split)
  local level_now, split_now = dedup_growth(growth_key)
  return level_now == tonumber(level) and split_now == tonumber(split)
end

-- What a caller is answered that chose others: nothing was changed, and it can choose again.
local function stale(growth_key)
  local level, split = dedup_growth(growth_key)
  return {'stale', level, split}
end
