-- Decides whether hosts may be asked now for jobs that are claimed already: the targets of redirects. Behind the arguments come the
-- questions.
-- Returns {what was dropped from `hosts` as nobody could understand it, {for each question its start as in a claim, or '' when the host may not
-- be asked within the time}}
must_hold('zset', hosts_held_key)
open_hosts(hosts_key)
local now = now_ms()
local starts = {}
for a = questions_from, #ARGV, QUESTION_ARGS do
  local host, ahead_ms = ARGV[a + QUESTION_HOST], tonumber(ARGV[a + QUESTION_AHEAD_MS])
  local state = host_state(hosts_key, host, now)
  local verdict, what = may_ask(host, state, now, math.min(ahead_ms, AHEAD_MAX))
  if verdict == 'wait' then
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
