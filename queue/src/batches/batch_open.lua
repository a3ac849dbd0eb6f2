-- Starts a batch, or hands one that was broken off to another enqueuer.
-- `enqueuer_before` is '' for a new batch, `command` (by whose digest a repeated one finds the batch) for none.
-- Returns {'ok', chunks, links} or {'taken', 0, 0}: somebody else has the batch, or it is sealed or gone
--
-- An enqueuer that was thought gone and goes on is refused by its name, so that two never number chunks side by side.
must_know_schema()
must_hold('hash', batch_key)
must_hold('zset', batches_key, batches_unsealed_key)
local now = now_ms()

-- Whoever repeats the command finds the batch by it, however many others there are by then.
local function enter_command()
  if command ~= '' then redis.call('ZADD', batches_unsealed_key, 0, command .. ' ' .. batch) end
end

if enqueuer_before == '' then
  if redis.call('EXISTS', batch_key) == 0 then
    redis.call('HSET', batch_key, 'started', now, 'seen', now, 'source', source, 'enqueuer', enqueuer, 'enqueued', 0,
      'stored', 0, 'rejected', 0, 'failed', 0, 'bytes', 0)
    if command ~= '' then redis.call('HSET', batch_key, 'command', command) end
    redis.call('ZADD', batches_key, now, batch)
    enter_command()
    return {'ok', 0, 0}
  end
  return {redis.call('HGET', batch_key, 'enqueuer') == enqueuer and 'ok' or 'taken', 0, 0}
end
local state = redis.call('HMGET', batch_key, 'enqueuer', 'sealed', 'chunk', 'enqueued', 'duplicates')
-- The name itself: the answer to an earlier call was lost.
if (state[1] ~= enqueuer_before and state[1] ~= enqueuer) or state[2] then return {'taken', 0, 0} end
redis.call('HSET', batch_key, 'enqueuer', enqueuer, 'seen', now)
enter_command()
return {'ok', tonumber(state[3]) or 0, (tonumber(state[4]) or 0) + (tonumber(state[5]) or 0)}
