-- Suspects: jobs that were there when a worker died twice. They run beside other jobs, in few workers at a time; when one of these dies
-- it is halved how many of them may run together (workers/recover.lua), and the last ones run alone. So what kills workers is found,
-- however many jobs were there with it, and holds up nobody else.

-- One worker in so many, and at least one, has suspects at a time: what they kill is never most of the fleet.
local WORKERS_A_TRIAL = 5
-- Those for whom no worker is free come back after so long at least, and about so many a second, but not much later.
local TRIAL_WAIT_MS, TRIALS_A_SECOND, TRIAL_SPREAD_MAX_MS = 500, 500, 20000

local crashes_known, trial_is_free, suspects_before
-- Suspects that this worker has, and how many it may have; members of `trials` that are gone.
local suspects_here, suspects_here_max, trials_over = 0, 1000, {}

local function open_trials()
  crashes_known = redis.call('EXISTS', crashes_key) == 1
  local text = crashes_known and redis.call('HGET', worker_key, 'suspects')
  if not text then return end
  local here, max = string.match(text, '^(%d+) (%d+)$')
  suspects_here, suspects_here_max = tonumber(here) or 0, tonumber(max) or suspects_here_max
  suspects_before = suspects_here
end

-- Whether this worker may be one of those that have suspects.
local function has_trial()
  if suspects_here > 0 then return true end
  if trial_is_free == nil then
    local trials = 0
    for _, name in ipairs(redis.call('SMEMBERS', trials_key)) do
      if redis.call('ZSCORE', workers_key, name) then trials = trials + 1 else trials_over[#trials_over + 1] = name end
    end
    trial_is_free = trials < math.max(1, math.floor(redis.call('ZCARD', workers_key) / WORKERS_A_TRIAL))
  end
  return trial_is_free
end

-- Whether a suspect may start that may run with so many, itself among them.
local function may_try(suspects)
  return suspects_here + 1 <= math.min(suspects, suspects_here_max) and has_trial()
end

-- A suspect starts.
local function try(suspects)
  suspects_here, suspects_here_max = suspects_here + 1, math.min(suspects, suspects_here_max)
end

-- When a suspect is looked at again that cannot start now.
local function place_of_suspect(now, number)
  local spread_ms = math.max(1000, math.min(redis.call('HLEN', crashes_key) * 1000 / TRIALS_A_SECOND, TRIAL_SPREAD_MAX_MS))
  return now + TRIAL_WAIT_MS + math.floor((now + number * 617) % spread_ms)
end

local function save_trial()
  if #trials_over > 0 then redis.call('SREM', trials_key, unpack(trials_over)) end
  if suspects_here == (suspects_before or 0) then return end
  redis.call('HSET', worker_key, 'suspects', suspects_here .. ' ' .. suspects_here_max)
  redis.call('SADD', trials_key, worker)
end
