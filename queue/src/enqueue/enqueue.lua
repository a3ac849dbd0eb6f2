-- Adds one chunk of jobs of a batch to the back of the queue, each link once.
-- KEYS: 1 ready, 2 batch, 3 stats, 4 growth of dedup, then with dedup a bucket for each run of links that are in it
-- ARGV: 1 enqueuer, 2 number of the chunk (1, 2, …), 3 and 4 level and split that buckets were chosen for, or '' without
--       dedup, then with dedup for each run: how many links it has, their digests, all different, and their payloads; without
--       dedup payloads
-- Returns {what, enqueued, duplicates, length of ready, level, split, links known to dedup}, where what is
--   "ok", or "again" for one of the last two chunks, which was added before
--   "gap", with the number of the chunk that is missing as the second
--   "stale": level or split are others; nothing was changed
--   "missing", "taken"
--
-- The number makes a repeated chunk harmless (its reply was lost) and shows a lost one (Redis restarted from an older
-- state). An enqueuer sends a chunk while it waits for the reply to the one before, so two may have to be repeated. This
-- script and dedup_split alone have no allow-oom flag: at maxmemory Redis refuses them whole, before they ran.
local function reply(what, enqueued, duplicates)
  return {what, enqueued, duplicates, redis.call('LLEN', KEYS[1]), dedup_growth(KEYS[4])}
end
must_hold('list', KEYS[1])
must_hold('hash', KEYS[2], KEYS[3], KEYS[4])
if redis.call('EXISTS', KEYS[2]) == 0 then return reply('missing', 0, 0) end
local number = tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[2], 'chunk', 'chunk_enqueued', 'chunk_duplicates', 'enqueuer', 'sealed',
  'before_enqueued', 'before_duplicates')
if state[4] ~= ARGV[1] then return reply('taken', 0, 0) end
local last = tonumber(state[1]) or 0
if number == last then return reply('again', tonumber(state[2]), tonumber(state[3])) end
if number == last - 1 then return reply('again', tonumber(state[6]) or 0, tonumber(state[7]) or 0) end
if number < last then return reply('again', 0, 0) end
if number > last + 1 then return reply('gap', last + 1, 0) end
if state[5] then return reply('taken', 0, 0) end

local payloads, duplicates = {}, 0
if ARGV[3] == '' then
  payloads = {unpack(ARGV, 5)}
else
  if not dedup_is_at(KEYS[4], ARGV[3], ARGV[4]) then return reply('stale', 0, 0) end
  must_hold('set', unpack(KEYS, 5))
  -- Two calls for all links of a run in place of one for each: what a script calls costs it more on the way than in the command.
  local call, a, n = redis.call, 5, 0
  for run = 5, #KEYS do
    local links = tonumber(ARGV[a])
    if links == 1 then
      if call('SADD', KEYS[run], ARGV[a + 1]) == 1 then
        n = n + 1
        payloads[n] = ARGV[a + 2]
      end
    else
      local known = call('SMISMEMBER', KEYS[run], unpack(ARGV, a + 1, a + links))
      local digests = {}
      for link = 1, links do
        if known[link] == 0 then
          n = n + 1
          payloads[n] = ARGV[a + links + link]
          digests[#digests + 1] = ARGV[a + link]
        end
      end
      if #digests > 0 then call('SADD', KEYS[run], unpack(digests)) end
    end
    a = a + 1 + 2 * links
    duplicates = duplicates + links
  end
  duplicates = duplicates - n
  if n > 0 then add_to(KEYS[4], 'count', n) end
end
-- A chunk has at most 1,000 links; unpack fails near 8,000.
if #payloads > 0 then redis.call('RPUSH', KEYS[1], unpack(payloads)) end
redis.call('HSET', KEYS[2], 'chunk', number, 'chunk_enqueued', #payloads, 'chunk_duplicates', duplicates,
  'before_enqueued', state[2] or 0, 'before_duplicates', state[3] or 0, 'seen', now_ms())
add_to(KEYS[2], 'enqueued', #payloads)
if duplicates > 0 then add_to(KEYS[2], 'duplicates', duplicates) end
add_to(KEYS[3], 'enqueued', #payloads)
return reply('ok', #payloads, duplicates)
