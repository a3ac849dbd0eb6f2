-- Starts a batch, or hands one that was broken off to another enqueuer.
-- KEYS: 1 batch, 2 batches
-- ARGV: 1 batch id, 2 the enqueuer from now on, 3 the enqueuer before it ("" for a new batch),
--       4 what is enqueued, for people, 5 digest of the command, by which a repeated one finds the batch ("" for none)
-- Returns {"ok", chunks, links} or {"taken", 0, 0}: somebody else has the batch, or it is sealed or gone
--
-- An enqueuer that was thought gone and goes on is refused by its name, so that two never number chunks side by side.
must_hold('hash', KEYS[1])
must_hold('zset', KEYS[2])
local now = now_ms()
if ARGV[3] == '' then
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'started', now, 'seen', now, 'source', ARGV[4], 'enqueuer', ARGV[2], 'enqueued', 0,
      'stored', 0, 'rejected', 0, 'failed', 0, 'bytes', 0)
    if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'command', ARGV[5]) end
    redis.call('ZADD', KEYS[2], now, ARGV[1])
    return {'ok', 0, 0}
  end
  return {redis.call('HGET', KEYS[1], 'enqueuer') == ARGV[2] and 'ok' or 'taken', 0, 0}
end
local state = redis.call('HMGET', KEYS[1], 'enqueuer', 'sealed', 'chunk', 'enqueued', 'duplicates')
-- The name itself: the answer to an earlier call was lost.
if (state[1] ~= ARGV[3] and state[1] ~= ARGV[2]) or state[2] then return {'taken', 0, 0} end
redis.call('HSET', KEYS[1], 'enqueuer', ARGV[2], 'seen', now)
return {'ok', tonumber(state[3]) or 0, (tonumber(state[4]) or 0) + (tonumber(state[5]) or 0)}
