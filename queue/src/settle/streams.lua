-- As `must_hold`, for a stream that is to be appended to: it has a last id, after which nothing comes.
local function must_take(stream)
  must_hold('stream', stream)
  local facts = redis.pcall('XINFO', 'STREAM', stream)
  for k = 1, #facts, 2 do
    if facts[k] == 'last-generated-id' and string.sub(facts[k + 1], 1, 20) == '18446744073709551615' then
      error({err = 'ERR ' .. stream .. ' has had its last possible id: nothing more can be appended'})
    end
  end
end
