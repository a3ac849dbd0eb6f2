-- Makes a reader that begins with the oldest result there is; one that is there stays as it is.
must_hold('stream', results_key)
local made = redis.pcall('XGROUP', 'CREATE', results_key, reader, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return {'ok'}
