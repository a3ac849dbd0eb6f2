-- Decides whether hosts may be asked now for jobs that are claimed already: the targets of redirects. Behind the arguments come the
-- questions.
-- Returns {what was dropped from `hosts` as nobody could understand it, {for each question its start as in a claim, or '' when the host may not
-- be asked within the time, or the worker is not registered}}
must_hold('zset', hosts_held_key, workers_key)
open_hosts(hosts_key)
local now = now_ms()
local starts = {}
-- Who was taken for dead has no job any more to ask for, and nobody would wait for its probe.
local is_registered = redis.call('ZSCORE', workers_key, worker)
for a = questions_from, #ARGV, QUESTION_ARGS do
  local host, ahead_ms = ARGV[a + QUESTION_HOST], tonumber(ARGV[a + QUESTION_AHEAD_MS])
  local state = host_state(hosts_key, host, now)
  local verdict, what = may_ask(host, state, now, math.min(ahead_ms, AHEAD_MAX))
  if verdict == 'wait' or not is_registered then
    starts[#starts + 1] = ''
  elseif verdict == 'refused' then
    starts[#starts + 1] = what
  else
    starts[#starts + 1] = admit(state, now, verdict, what)
  end
end
look_at_old_entries(now)
save_hosts(hosts_key, hosts_held_key, now)
return {hosts_dropped, starts}
