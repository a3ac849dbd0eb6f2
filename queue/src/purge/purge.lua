-- Removes jobs that wait, those of one page that are still where the caller saw them.
-- KEYS: 1 ready, 2 delayed, 3 stats, 4 growth of dedup, 5 crashes, then for each job: its batch, the dedup bucket of its link
-- ARGV: 1 "ready" or "delayed", 2 and 3 level and split that buckets were chosen for, then for each job: payload,
--       "1" when it has a batch, digest
-- Returns {the number of jobs removed, level, split}; -1 when level or split are others: then nothing was changed
--
-- Workers claim from the front of `ready` meanwhile, so that the page begins somewhere before what is there now; jobs that were
-- given back may stand before it, and then the caller reads again. What is compared is whole payloads: an equal one is as good.
-- Each job that goes is counted as `purged` in its batch, which would else never finish, and its link may be enqueued again.
local level, split = dedup_growth(KEYS[4])
if not dedup_is_at(KEYS[4], ARGV[2], ARGV[3]) then return {-1, level, split} end
must_hold('list', KEYS[1])
must_hold('zset', KEYS[2])
must_hold('hash', KEYS[3], KEYS[4], KEYS[5])
for k = 6, #KEYS, 2 do
  must_hold('hash', KEYS[k])
  must_hold('set', KEYS[k + 1])
end
local jobs = (#ARGV - 3) / 3
local removed = {}

if ARGV[1] == 'ready' then
  local there = redis.call('LRANGE', KEYS[1], 0, jobs - 1)
  local skip = 0
  while skip < jobs and ARGV[4 + 3 * skip] ~= there[1] do skip = skip + 1 end
  local count = 0
  while skip + count < jobs and ARGV[4 + 3 * (skip + count)] == there[count + 1] do
    count = count + 1
    removed[count] = skip + count - 1
  end
  if count > 0 then redis.call('LTRIM', KEYS[1], count, -1) end
else
  for job = 0, jobs - 1 do
    if redis.call('ZREM', KEYS[2], ARGV[4 + 3 * job]) == 1 then removed[#removed + 1] = job end
  end
end

local crashes_known = redis.call('EXISTS', KEYS[5]) == 1
local batches, forgotten = {}, 0
for _, job in ipairs(removed) do
  forgotten = forgotten + redis.call('SREM', KEYS[7 + 2 * job], ARGV[6 + 3 * job])
  if crashes_known then redis.call('HDEL', KEYS[5], crash_key(ARGV[4 + 3 * job])) end
  if ARGV[5 + 3 * job] == '1' then
    local batch = KEYS[6 + 2 * job]
    batches[batch] = (batches[batch] or 0) + 1
  end
end
if forgotten > 0 then add_to(KEYS[4], 'count', -forgotten) end
if #removed > 0 then add_to(KEYS[3], 'purged', #removed) end
local now = now_ms()
for batch, count in pairs(batches) do
  if redis.call('EXISTS', batch) == 1 then
    add_to(batch, 'purged', count)
    finish_batch(batch, now)
  end
end
return {#removed, level, split}
