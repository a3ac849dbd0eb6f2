-- Claims jobs under the worker's lease: due delayed ones first, then from the front of the queue. Jobs whose host may
-- not be asked now are put in `delayed` on the way, so that they hold up nobody behind them.
-- Behind the arguments come the hosts whose jobs wait in the worker; a pace of 0 says that more of its jobs are welcome.
-- Returns {status, ms until the next delayed job is due or -1, 1 when others may be behind what was looked at else 0,
--   1 when the one job has to run alone else 0, those of the worker's hosts that are to be left alone,
--   what was dropped from `hosts` as nobody could understand it, {for each job: payload, crashes, what it is admitted to},
--   what a worker has to know for jobs that were left to others}
--   status 'ok'; or alone: 'paused'; 'reaped': the worker is no longer registered; 'stale': a later claim was here first;
--   'schema', and the version: a newer imgq wrote this queue;
--   'full': there are as many results as there may be, and their readers have not taken them
--   what it is admitted to: hosts and starts in turn, none where there is nothing to say about hosts (claim/admissions.lua)
--   start: ms to wait; ? and a reason: it tries for all others whether the host, which was left alone for that reason,
--   answers again; a reason alone: the host has refused so often that waiting for it is over
--
-- A job's field in the in-flight hash, 'claim number.index', is its fencing token: settle acts only if it is there.
-- The number comes from the worker and only rises, so that no rollback of Redis can hand one out twice, and a claim
-- that timed out and runs late is refused.
--
-- First everything is read and decided, then everything is moved: nothing that can fail stands behind the first job's move.
local now = now_ms()
must_hold('list', ready_key)
must_hold('zset', delayed_key, workers_key, hosts_held_key)
must_hold('hash', inflight_key, worker_key, meta_key, crashes_key, stats_key)
must_hold('stream', results_key)
must_hold('set', trials_key)
if not redis.call('ZSCORE', workers_key, worker) then return {'reaped'} end
local schema_now = tonumber(redis.call('HGET', meta_key, 'schema'))
if schema_now and schema_now > schema then return {'schema', schema_now} end
if claim_number <= (tonumber(redis.call('HGET', worker_key, 'claim')) or 0) then return {'stale'} end
redis.call('HSET', worker_key, 'claim', claim_number)
redis.call('ZADD', workers_key, now + lease_ms, worker)
open_hosts(hosts_key)
-- Whatever is claimed: what waits in the worker goes on asking.
if redis.call('HGET', meta_key, 'paused') then return {'paused', left_alone(now)} end
-- Who asks for no job asks about hosts alone, which needs no room.
local max = jobs_max > 0 and with_room_for_results(jobs_max, now) or 0
if jobs_max > 0 and max <= 0 and results_max > 0 then return {'full', left_alone(now)} end

-- Jobs looked at for hosts that cannot take them, in one call: 500 cost about 3 ms.
local LOOKS_MAX = 500
-- Bytes of jobs that one call looks at: 2.8 ms for each MB that a script only touches, and 16 times as much for what has to be
-- decoded.
local LOOKS_BYTES_MAX = 1048576
local DECODING_FACTOR = 16
-- Elements that are read at once: nobody knows how large what was pushed by hand is before it was read.
local PAGE_MAX = 16

local looks_at_hosts = hosts_matter()
open_trials()
-- What becomes of the jobs that were looked at: fields and payloads for the in-flight hash; times and payloads of those that
-- stay in `delayed`, and of those that come into it; members that leave `delayed`.
local fields_begin = string.format('%.0f.', claim_number)
local filed, staying, parking, leaving = {}, {}, {}, {}
-- Payloads, crashes and admissions, for the reply.
local jobs = {}
-- Jobs that were put aside, and of these the ones that wait for their hosts.
local aside, held, looked_bytes = 0, 0, 0
local runs_alone = 0

-- Puts a job aside that cannot start before `due`; `member` is set for one of `delayed`.
local function put_aside(payload, member, due)
  aside = aside + 1
  if member == payload then
    staying[#staying + 1], staying[#staying + 2] = due, payload
  else
    parking[#parking + 1], parking[#parking + 2] = due, payload
    if member then leaving[#leaving + 1] = member end
  end
end

local function file(payload, member, crashes, admissions)
  if member then leaving[#leaving + 1] = member end
  local filed_before, told_before = #filed, #jobs
  filed[filed_before + 1], filed[filed_before + 2] = fields_begin .. filed_before / 2 + 1, payload
  jobs[told_before + 1], jobs[told_before + 2], jobs[told_before + 3] = payload, crashes, admissions
end

-- Takes an element, or puts it aside. False when the claim ends before it, as it has to run alone and others were taken.
local function take(element, member)
  local payload, further_bytes = payload_of(element)
  looked_bytes = looked_bytes + math.max(#element, #payload) + further_bytes
  local crashes, suspects, is_tried, admissions, due = 0, 1, false, NOWHERE, nil
  if may_be_unknown(payload) then
    looked_bytes = looked_bytes + DECODING_FACTOR * #payload
    if is_unknown(payload) then
      put_aside(payload, member, place_of_unknown(now))
      return true
    end
  end
  if crashes_known then
    crashes, suspects = crashes_of(payload)
    is_tried = crashes == SUSPECT
    if is_tried and not may_try(suspects) then
      put_aside(payload, member, place_of_suspect(now, aside))
      return true
    end
    if is_tried and suspects == 1 and #filed > 0 then
      max = 0
      return false
    end
  end
  if looks_at_hosts then due = place_at_wall(payload, now) end
  if looks_at_hosts and not due then
    local host, is_decoded = host_of(payload)
    if is_decoded then looked_bytes = looked_bytes + DECODING_FACTOR * #payload end
    admissions, due = admissions_of(payload, host, targets_of(payload), now)
  end
  if due then
    put_aside(payload, member, due)
    held = held + 1
    return true
  end
  file(payload, member, crashes, admissions)
  if is_tried then
    try(suspects)
    if suspects == 1 then max, runs_alone = 0, 1 end
  end
  return true
end

-- Whether enough was looked at for one call.
local function is_enough()
  return #filed / 2 >= max or aside >= LOOKS_MAX or looked_bytes >= LOOKS_BYTES_MAX
end

-- Jobs that wait behind a wall of those whose host may not be asked, say behind a million of one host, are found from the other end.
local function take_last(taken)
  local rest = redis.call('LLEN', ready_key) - taken
  local wanted = math.min(PAGE_MAX, rest, max - #filed / 2)
  if wanted <= 0 or looked_bytes >= LOOKS_BYTES_MAX then return 0 end
  for _, element in ipairs(redis.call('LRANGE', ready_key, -wanted, -1)) do
    -- One that has to run alone is not passed over, and nothing runs beside it: the next claim begins with what is left.
    if runs_alone == 1 or not take(element) then put_aside(element, nil, now) end
  end
  return wanted
end

-- Reads elements page by page, as many as there may be use for, and takes them until one is refused. Returns how many were taken.
local function take_from(page, is_of_delayed)
  local number = 0
  while not is_enough() do
    local wanted = math.min(number == 0 and 1 or PAGE_MAX, looks_at_hosts and LOOKS_MAX - aside or max - #filed / 2)
    local elements = page(number, number + wanted - 1)
    for _, element in ipairs(elements) do
      if is_enough() or not take(element, is_of_delayed and element) then return number end
      number = number + 1
    end
    if #elements < wanted then return number end
  end
  return number
end

take_from(function(from, to)
  return redis.call('ZRANGE', delayed_key, '-inf', now, 'BYSCORE', 'LIMIT', from, to - from + 1)
end, true)
local taken = take_from(function(from, to)
  return redis.call('LRANGE', ready_key, from, to)
end)
local taken_last = aside >= LOOKS_MAX and take_last(taken) or 0

-- Hosts first: whether what is put down can be put down was looked at when it was read.
local alone = {}
if looks_at_hosts then
  alone = left_alone(now)
  look_at_old_entries(now)
  save_hosts(hosts_key, hosts_held_key, now)
end
-- Each job comes into its new place before it leaves the one before.
in_parts('HSET', inflight_key, filed)
in_parts('ZADD', delayed_key, staying)
put_all_to_wait(delayed_key, parking, now * 1000)
in_parts('ZREM', delayed_key, leaving)
if taken + taken_last > 0 then redis.call('LTRIM', ready_key, taken, -1 - taken_last) end
if held > 0 then add_to(stats_key, 'held', held) end
save_trial()
save_unknown(now)

local next_due = redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2]
-- Times have fractions, and a wait that is cut off comes too early.
local next_due_ms = next_due and math.ceil(math.max(0, tonumber(next_due) - now)) or -1
local more = (aside > 0 or looked_bytes >= LOOKS_BYTES_MAX) and 1 or 0
return {'ok', next_due_ms, more, runs_alone, alone, hosts_dropped, jobs, unknown_said}
