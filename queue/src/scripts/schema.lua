-- Raises an error where a newer imgq wrote this queue: what that keeps here, this one does not know, and would spoil.
local function must_know_schema()
  must_hold('hash', meta_key)
  local found = tonumber(redis.call('HGET', meta_key, 'schema'))
  if found and found > schema then
    error({err = 'SCHEMA ' .. string.format('%.0f', found) .. ' is what ' .. meta_key .. ' says'})
  end
end
