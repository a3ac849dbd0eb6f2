-- What a call adds to counters, gathered until nothing can fail any more.

-- Fields of a batch's hash, of which about 30 are not hosts.
local HOSTS_MAX = 230
local counts, batches_touched = {}, {}

local function count(key, field, by)
  local fields = counts[key]
  if not fields then
    fields = {}
    counts[key] = fields
  end
  fields[field] = (fields[field] or 0) + by
end

-- Which hosts a batch fared badly with, for as many as a person would look at: a list of strangers has no end of them.
local function count_host(batch_key, payload)
  local host = host_of(payload)
  if not host or not holds('hash', batch_key) then return end
  local field = 'host:' .. host
  if redis.call('HLEN', batch_key) < HOSTS_MAX or redis.call('HEXISTS', batch_key, field) == 1 then
    count(batch_key, field, 1)
  end
end

local function count_result(key, outcome, reason, bytes)
  count(key, outcome, 1)
  if reason ~= '' then count(key, outcome .. ':' .. reason, 1) end
  if bytes > 0 then count(key, 'bytes', bytes) end
end

local function add_counts(now)
  for key, fields in pairs(counts) do
    -- A batch whose hash is gone was rolled back, or removed by hand: no new hash is made of its late results.
    if not batches_touched[key] or holds('hash', key) then
      for field, by in pairs(fields) do add_to(key, field, by) end
      if batches_touched[key] then finish_batch(key, now) end
    end
  end
end
