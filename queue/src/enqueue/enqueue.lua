-- Adds one chunk of jobs of a batch to the back of the queue, each link once. With dedup, where `level` is set, runs of links follow
-- that are in one bucket: `RUN`, then their digests, all different, then their payloads. Without it payloads follow.
-- Returns {what, level, split, enqueued, duplicates, length of ready, links known to dedup}, where what is
--   'ok', or 'again' for one of the last two chunks, which was added before
--   'gap', with the number of the chunk that is missing for `enqueued`
--   'missing', 'taken'
-- or what `stale` says: then nothing was changed
--
-- The number makes a repeated chunk harmless (its reply was lost) and shows a lost one (Redis restarted from an older
-- state). An enqueuer sends a chunk while it waits for the reply to the one before, so two may have to be repeated. At maxmemory
-- Redis refuses this script whole, before it ran.
must_know_schema()
local function reply(what, enqueued, duplicates)
  local level_now, split_now, known = dedup_growth(growth_key)
  return {what, level_now, split_now, enqueued, duplicates, redis.call('LLEN', ready_key), known}
end
must_hold('list', ready_key)
must_hold('hash', batch_key, stats_key, growth_key)
if redis.call('EXISTS', batch_key) == 0 then return reply('missing', 0, 0) end
local state = redis.call('HMGET', batch_key, 'chunk', 'chunk_enqueued', 'chunk_duplicates', 'enqueuer', 'sealed',
  'before_enqueued', 'before_duplicates')
if state[4] ~= enqueuer then return reply('taken', 0, 0) end
local last = tonumber(state[1]) or 0
if chunk_number == last then return reply('again', tonumber(state[2]), tonumber(state[3])) end
if chunk_number == last - 1 then return reply('again', tonumber(state[6]) or 0, tonumber(state[7]) or 0) end
if chunk_number < last then return reply('again', 0, 0) end
if chunk_number > last + 1 then return reply('gap', last + 1, 0) end
if state[5] then return reply('taken', 0, 0) end

-- Notes the links of a run that are new, and appends their payloads. Two calls for all of a run in place of one for each: what a
-- script calls costs it more on the way than in the command.
local function add_new(payloads, bucket_key, links, digests_from)
  local call, n = redis.call, #payloads
  if links == 1 then
    if call('SADD', bucket_key, ARGV[digests_from]) == 1 then payloads[n + 1] = ARGV[digests_from + 1] end
    return
  end
  local known = call('SMISMEMBER', bucket_key, unpack(ARGV, digests_from, digests_from + links - 1))
  local digests = {}
  for link = 0, links - 1 do
    if known[link + 1] == 0 then
      n = n + 1
      payloads[n] = ARGV[digests_from + links + link]
      digests[#digests + 1] = ARGV[digests_from + link]
    end
  end
  if #digests > 0 then call('SADD', bucket_key, unpack(digests)) end
end

local payloads, duplicates = {}, 0
if not level then
  payloads = {unpack(ARGV, links_from)}
else
  if not dedup_is_at(growth_key, level, split) then return stale(growth_key) end
  must_hold('set', unpack(KEYS, buckets_from))
  local a, all = links_from, 0
  for k = buckets_from, #KEYS, RUN_KEYS do
    local links = tonumber(ARGV[a + RUN_LINKS])
    add_new(payloads, KEYS[k + RUN_BUCKET_KEY], links, a + RUN_ARGS)
    a = a + RUN_ARGS + 2 * links
    all = all + links
  end
  duplicates = all - #payloads
  if #payloads > 0 then add_to(growth_key, 'count', #payloads) end
end
-- A chunk has at most 1,000 links; unpack fails near 8,000.
if #payloads > 0 then redis.call('RPUSH', ready_key, unpack(payloads)) end
redis.call('HSET', batch_key, 'chunk', chunk_number, 'chunk_enqueued', #payloads, 'chunk_duplicates', duplicates,
  'before_enqueued', state[2] or 0, 'before_duplicates', state[3] or 0, 'seen', now_ms())
add_to(batch_key, 'enqueued', #payloads)
if duplicates > 0 then add_to(batch_key, 'duplicates', duplicates) end
add_to(stats_key, 'enqueued', #payloads)
return reply('ok', #payloads, duplicates)
