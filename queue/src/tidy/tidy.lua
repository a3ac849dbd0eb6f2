-- Forgets what ended longer ago than it is to be kept, some of each kind, and says which batches may be forgotten as well: their keys are
-- not known here (batch_forget.lua).
-- Returns {'later'} when it is not due; or {'ok', results that went, dead letters that went, entries of hosts that went, 1 when more may
-- be left else 0, names of readers that results do not wait for any more, what was dropped from `hosts` as nobody could understand it,
-- for how long batches are kept (ms), ids of batches that began longer ago}
must_know_schema()
must_hold('stream', results_key, dead_key)
must_hold('zset', batches_key, hosts_held_key)
local now = now_ms()
if not is_forced and not tidy_is_due(now) then return {'later'} end
-- Whatever becomes of it, nobody else tries at once.
redis.call('HSET', meta_key, 'tidy_at', now + TIDY_EVERY_MS)

-- Entries of hosts that are looked at, and how many bytes of them: 64 KB that had to be decoded took 4.5 ms.
local HOSTS_MAX, HOSTS_BYTES_MAX = 100, 65536

-- Notes since when each reader has stood where it stands, with results before it. Returns those that did so for too long.
local function look_at_readers()
  local silent, known = {}, {}
  for _, group in ipairs(readers_of_results()) do
    local field = 'reader:' .. group.name
    local has_more = group.pending > 0 or #redis.call('XRANGE', results_key, '(' .. group['last-delivered-id'], '+', 'COUNT', 1) > 0
    local since = stands_since(group)
    if has_more then
      known[field] = true
      if not since or since > now then redis.call('HSET', meta_key, field, position_of(group) .. ' ' .. string.format('%.0f', now)) end
      if is_silent(group, now) then silent[#silent + 1] = group.name end
    end
  end
  for _, field in ipairs(redis.call('HKEYS', meta_key)) do
    if string.sub(field, 1, 7) == 'reader:' and not known[field] then redis.call('HDEL', meta_key, field) end
  end
  return silent
end

local function trim_results()
  local keep = keep_ms('results')
  if not keep then return 0 end
  local ms, number = now - keep, 0
  local taken_ms, taken_number = first_not_taken_by_any(now)
  if taken_ms and (taken_ms < ms or taken_ms == ms and taken_number < number) then ms, number = taken_ms, taken_number end
  return ms > 0 and trim(results_key, string.format('%.0f-%.0f', ms, number)) or 0
end

local function trim_dead()
  local keep = keep_ms('dead')
  return keep and now > keep and trim(dead_key, string.format('%.0f-0', now - keep)) or 0
end

-- Those that nobody asks for are found by chance, as by claims, which look at fewer.
local function look_at_hosts()
  open_hosts(hosts_key)
  local gone, bytes = 0, 0
  for _, host in ipairs(redis.call('HRANDFIELD', hosts_key, HOSTS_MAX)) do
    bytes = bytes + redis.call('HSTRLEN', hosts_key, host)
    if bytes > HOSTS_BYTES_MAX then break end
    if has_nothing_left(host_state(hosts_key, host, now), now) then
      gone = gone + 1
    else
      hosts_read[host], ends_read[host] = nil, nil
    end
  end
  save_hosts(hosts_key, hosts_held_key, now)
  return gone
end

-- A pass goes from the earliest batch on: those that it met and that stay, as they are not finished, are passed over. By their places,
-- which Redis finds at once, where it would go through all that an offset passes over.
local function old_batches()
  local keep = keep_ms('batches')
  if not keep then return 0, {} end
  local skip, ids = math.max(0, math.floor(tonumber(redis.call('HGET', meta_key, 'tidy_skip')) or 0)), {}
  local page = redis.call('ZRANGE', batches_key, skip, skip + batches_max - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    if tonumber(page[i + 1]) > now - keep then break end
    ids[#ids + 1] = page[i]
  end
  -- A number that is none is mended by this as well.
  if #ids < batches_max then redis.call('HDEL', meta_key, 'tidy_skip') else redis.call('HSET', meta_key, 'tidy_skip', skip) end
  return keep, ids
end

local silent = look_at_readers()
local results, dead, hosts = trim_results(), trim_dead(), look_at_hosts()
local keep_batches_ms, batches = old_batches()
local more = results > 50 or dead > 50 or hosts > HOSTS_MAX / 4 or #batches == batches_max
if more then redis.call('HSET', meta_key, 'tidy_at', now + TIDY_AGAIN_MS) end
return {'ok', results, dead, hosts, more and 1 or 0, silent, hosts_dropped, keep_batches_ms, batches}
