-- Makes a reader that begins with the oldest result there is; one that is there stays as it is.
-- Returns {'ok', ms for which it has stood still, so long that results were not kept for it any more, or -1}
must_know_schema()
must_hold('stream', results_key)
local now, still_ms = now_ms(), -1
for _, group in ipairs(readers_of_results()) do
  if group.name == reader and is_silent(group, now) then
    still_ms = now - stands_since(group)
    -- It is back: what is there now is kept for it.
    redis.call('HSET', meta_key, 'reader:' .. reader, position_of(group) .. ' ' .. string.format('%.0f', now))
  end
end
local made = redis.pcall('XGROUP', 'CREATE', results_key, reader, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return {'ok', still_ms}
