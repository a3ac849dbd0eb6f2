-- Adds one chunk of jobs of a batch to the back of the queue, each link once.
-- KEYS: 1 ready, 2 batch, 3 stats, 4.. the dedup bucket of each link (none with dedup off)
-- ARGV: 1 enqueuer, 2 number of the chunk (1, 2, …), 3 "1" for dedup, then for each link: digest, payload
-- Returns {"ok"|"again", enqueued, duplicates}, {"gap", next number, 0}, {"missing", 0, 0} or {"taken", 0, 0}
--
-- The number makes a repeated chunk harmless (its reply was lost) and shows a lost one (Redis restarted from an older
-- state). This script alone has no allow-oom flag: at maxmemory Redis refuses it whole, before it ran.
if redis.call('EXISTS', KEYS[2]) == 0 then return {'missing', 0, 0} end
local number = tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[2], 'chunk', 'chunk_enqueued', 'chunk_duplicates', 'enqueuer', 'sealed')
if state[4] ~= ARGV[1] then return {'taken', 0, 0} end
local last = tonumber(state[1]) or 0
if number == last then return {'again', tonumber(state[2]), tonumber(state[3])} end
if number < last then return {'again', 0, 0} end
if number > last + 1 then return {'gap', last + 1, 0} end
if state[5] then return {'taken', 0, 0} end

local payloads, duplicates = {}, 0
for i = 4, #ARGV, 2 do
  if ARGV[3] == '1' and redis.call('HSETNX', KEYS[2 + i / 2], ARGV[i], '') == 0 then
    duplicates = duplicates + 1
  else
    payloads[#payloads + 1] = ARGV[i + 1]
  end
end
-- A chunk has at most 1,000 links; unpack fails near 8,000.
if #payloads > 0 then redis.call('RPUSH', KEYS[1], unpack(payloads)) end
redis.call('HSET', KEYS[2], 'chunk', number, 'chunk_enqueued', #payloads, 'chunk_duplicates', duplicates,
  'seen', now_ms())
redis.call('HINCRBY', KEYS[2], 'enqueued', #payloads)
if duplicates > 0 then redis.call('HINCRBY', KEYS[2], 'duplicates', duplicates) end
redis.call('HINCRBY', KEYS[3], 'enqueued', #payloads)
return {'ok', #payloads, duplicates}
