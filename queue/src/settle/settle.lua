-- Settles a batch of claimed jobs, each only if its field is still in the worker's in-flight hash.
-- KEYS: 1 inflight of the worker, 2 results, 3 dead, 4 delayed, 5 ready, 6 stats, 7 crashes, 8 worker,
--       9 hosts, 10 workers, 11 growth of dedup, 12.. batches and dedup buckets, named by their index
-- ARGV: 1 worker, 2 number of jobs, 3 and 4 level and split that dedup buckets were chosen for, or '' where no job failed,
--       then the fields of the jobs, then what was learnt about hosts, by its first argument:
--   "refused", host, reason, ms that the server asks to wait or 0, ms of the first wait, ms of the longest
--   "silent", host, reason, ms of the first wait, ms of the longest: this worker gets no answer there
--   "answered", host
--   "unused", host, ms: starts that were given out, and were not needed
--   then what becomes of each job:
--   "report", KEYS index of its batch or 0, where its link is in dedup, then the values of the result as in NAMES. The link of
--             a failed job may be enqueued again: KEYS index of its bucket, digest; of others it is ''
--   "retry", delay (ms), payload with one more attempt spent
--   "hold", host, payload or '' for the one it was claimed as: until its host may be asked again
--   "release"
-- Returns {0, then for each job 1, or 0 when it was not this worker's any more: then nothing was changed for it; then what was
-- dropped from `hosts` as nobody could understand it}; or {-1, level, split} when these are others: then nothing was changed
--
-- A key that holds something else fails the whole call before anything is changed, say because somebody made `results` a
-- string: then the jobs are still in flight and their results come again.
-- One HMGET and one HDEL for all, and no names among the arguments: that was a third of the time that a result costs Redis.
must_take(KEYS[2])
if ARGV[3] ~= '' then must_take(KEYS[3]) end
must_hold('zset', KEYS[4], KEYS[10])
must_hold('list', KEYS[5])
must_hold('hash', KEYS[1], KEYS[6], KEYS[7], KEYS[8], KEYS[11])
-- Which of these are batches and which are buckets shows job by job.
for k = 12, #KEYS do
  if not holds('set', KEYS[k]) then must_hold('hash', KEYS[k]) end
end
local NAMES = {'id', 'url', 'outcome', 'reason', 'key', 'bytes', 'sha256', 'type', 'width', 'height', 'status', 'attempts', 'worker',
  'ms', 'batch'}
-- Fields of a batch's hash, of which about 30 are not hosts.
local HOSTS_MAX = 230
if ARGV[3] ~= '' and not dedup_is_at(KEYS[11], ARGV[3], ARGV[4]) then
  local level, split = dedup_growth(KEYS[11])
  return {-1, level, split}
end
open_hosts(KEYS[9])
local now = now_ms()
local crashes_known = redis.call('EXISTS', KEYS[7]) == 1
-- Only streams are appended to while jobs are gone through; all else that is to be done is gathered, and done when nothing can fail
-- any more.
local reply, released, waiting, over, known, counts, touched, gone = {0}, {}, {}, {}, {}, {}, {}, {}

local function count(key, field, by)
  counts[key] = counts[key] or {}
  counts[key][field] = (counts[key][field] or 0) + by
end

-- Jobs that wait in `delayed` for a time soon, read as far as somebody looks, and those that are to come forward.
local LINE_BYTES_MAX = 524288
local line, line_bytes, line_is_whole, cursors, forward = {}, 0, false, {}, {}

local function in_line(k)
  while k > #line and not line_is_whole and line_bytes < LINE_BYTES_MAX do
    local page = redis.call('ZRANGE', KEYS[4], '(' .. now, now + PARK_MAX, 'BYSCORE', 'LIMIT', #line, 20)
    for _, payload in ipairs(page) do
      line[#line + 1] = payload
      line_bytes = line_bytes + #payload
    end
    line_is_whole = #page < 20
  end
  return line[k]
end

-- The next ones in a host's line come forward, or a list that was downloaded before would be gone through at the host's rate.
local function bring_forward(host)
  local k, found = cursors[host] or 0, 0
  local last = k + 20
  while found < 2 and k < last do
    k = k + 1
    local payload = in_line(k)
    if not payload then break end
    if host_as_written(payload) == host and not string.find(payload, '"attempts"', 1, true) then
      forward[payload] = true
      found = found + 1
    end
  end
  cursors[host] = k
end

local function learn(about, i)
  local state = host_state(KEYS[9], ARGV[i + 1], now)
  if about == 'refused' then
    refuse(state, now, ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
    return i + 6
  elseif about == 'silent' then
    suspect(state, now, ARGV[1], redis.call('ZCARD', KEYS[10]), ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]))
    return i + 5
  elseif about == 'answered' then
    answered(state, ARGV[1])
    return i + 2
  end
  if (state.tat or 0) > now then state.tat = math.max(now, state.tat - tonumber(ARGV[i + 2])) end
  bring_forward(ARGV[i + 1])
  state.next = nil
  return i + 3
end

local ABOUT_HOSTS = {refused = true, silent = true, answered = true, unused = true}
local jobs = tonumber(ARGV[2])
local payloads = jobs > 0 and redis.call('HMGET', KEYS[1], unpack(ARGV, 5, 4 + jobs)) or {}
local i = 5 + jobs
while ABOUT_HOSTS[ARGV[i]] do i = learn(ARGV[i], i) end
for job = 1, jobs do
  local action, field = ARGV[i], ARGV[4 + job]
  -- What was settled earlier in this call is gone, though its field leaves at the end.
  local payload = not gone[field] and payloads[job]
  reply[job + 1] = payload and 1 or 0
  if payload then gone[field] = true end
  if action == 'report' then
    if payload then
      local outcome, reason, bytes = ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 8]) or 0
      if outcome == 'stored' and reason == '' and ARGV[i + 11] ~= '' and ARGV[i + 13] ~= '' and ARGV[i + 17] ~= '' then
        -- By far the most: the same as below without a table, which saves a fifth of the time.
        redis.call('XADD', KEYS[2], '*', 'id', ARGV[i + 3], 'url', ARGV[i + 4], 'outcome', outcome, 'key', ARGV[i + 7], 'bytes',
          ARGV[i + 8], 'sha256', ARGV[i + 9], 'type', ARGV[i + 10], 'width', ARGV[i + 11], 'height', ARGV[i + 12], 'status',
          ARGV[i + 13], 'attempts', ARGV[i + 14], 'worker', ARGV[i + 15], 'ms', ARGV[i + 16], 'batch', ARGV[i + 17])
      else
        local entry, n = {}, 0
        for k = 1, #NAMES do
          local value = ARGV[i + 2 + k]
          if value ~= '' then
            entry[n + 1], entry[n + 2] = NAMES[k], value
            n = n + 2
          end
        end
        redis.call('XADD', KEYS[2], '*', unpack(entry))
        if outcome == 'failed' then
          entry[n + 1], entry[n + 2] = 'job', payload
          redis.call('XADD', KEYS[3], '*', unpack(entry))
          known[#known + 1] = ARGV[i + 2]
        end
      end
      if crashes_known then over[#over + 1] = payload end
      count(KEYS[6], outcome, 1)
      if reason ~= '' then count(KEYS[6], outcome .. ':' .. reason, 1) end
      if bytes > 0 then count(KEYS[6], 'bytes', bytes) end
      local batch = tonumber(ARGV[i + 1])
      if batch > 0 then
        local key = KEYS[batch]
        touched[key] = true
        count(key, outcome, 1)
        if bytes > 0 then count(key, 'bytes', bytes) end
        if reason ~= '' then count(key, outcome .. ':' .. reason, 1) end
        if outcome ~= 'stored' then
          -- Which hosts a batch fared badly with, for as many as a person would look at: a list of strangers has no end of them.
          local host = 'host:' .. (host_of(payload) or '')
          if host ~= 'host:' and holds('hash', key)
            and (redis.call('HLEN', key) < HOSTS_MAX or redis.call('HEXISTS', key, host) == 1) then
            count(key, host, 1)
          end
        end
      end
    end
    i = i + 3 + #NAMES
  elseif action == 'retry' then
    if payload then
      waiting[#waiting + 1], waiting[#waiting + 2] = now + tonumber(ARGV[i + 1]), ARGV[i + 2]
      if crashes_known then over[#over + 1] = payload end
      count(KEYS[6], 'retried', 1)
    end
    i = i + 3
  elseif action == 'hold' then
    if payload then
      local held = ARGV[i + 2] ~= '' and ARGV[i + 2] or payload
      local state = host_state(KEYS[9], ARGV[i + 1], now)
      local ends = (state.ends or 0) > now and state.ends or now + 200
      waiting[#waiting + 1], waiting[#waiting + 2] = place_of(state, now, ends, HOLD_STEP), held
      count(KEYS[6], 'held', 1)
    end
    i = i + 3
  else
    if payload then
      released[#released + 1] = payload
    end
    i = i + 1
  end
end
save_hosts(KEYS[9], now)
for payload in pairs(forward) do redis.call('ZADD', KEYS[4], 'XX', now, payload) end
for w = 1, #waiting, 2 do put_to_wait(KEYS[4], waiting[w], waiting[w + 1], now * 1000 + w) end
for _, link in ipairs(known) do
  local bucket, digest = string.match(link, '^(%d+) (%d+)$')
  bucket = KEYS[tonumber(bucket) or 0]
  if bucket and holds('set', bucket) and redis.call('SREM', bucket, digest) == 1 then count(KEYS[11], 'count', -1) end
end
for _, payload in ipairs(over) do redis.call('HDEL', KEYS[7], crash_key(payload)) end
if crashes_known and gone[redis.call('HGET', KEYS[8], 'alone')] then redis.call('HDEL', KEYS[8], 'alone') end
-- Backwards, so that the first job given back is the first in the queue again.
for r = #released, 1, -1 do
  redis.call('LPUSH', KEYS[5], released[r])
  count(KEYS[6], 'released', 1)
end
if jobs > 0 then redis.call('HDEL', KEYS[1], unpack(ARGV, 5, 4 + jobs)) end
for key, fields in pairs(counts) do
  -- A batch whose hash is gone was purged: no new hash is made of its late results.
  if not touched[key] or holds('hash', key) then
    for field, by in pairs(fields) do add_to(key, field, by) end
    if touched[key] then finish_batch(key, now) end
  end
end
for _, dropped in ipairs(hosts_dropped) do reply[#reply + 1] = dropped end
return reply
