-- Appends a result whose values begin at ARGV[result]; what is empty is left out. One of a failed job goes to the dead letters as
-- well, with the payload it was claimed as.
local function append(result, failed_payload)
  local entry, n = {}, 0
  for k, name in ipairs(RESULT_FIELDS) do
    local value = ARGV[result + k - 1]
    if value ~= '' then
      entry[n + 1], entry[n + 2] = name, value
      n = n + 2
    end
  end
  redis.call('XADD', results_key, '*', unpack(entry))
  if failed_payload then
    entry[n + 1], entry[n + 2] = 'job', failed_payload
    redis.call('XADD', dead_key, '*', unpack(entry))
  end
end
