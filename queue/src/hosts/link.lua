-- The host that a job's link is asked from: what stands between :// and / of it, with its port where that is not the usual one.

-- The largest element of the queue that is looked at, in bytes, as in `job.rs`.
local PAYLOAD_BYTES_MAX = 65536
-- The longest name of a host, and what may stand around it: a user name and password, an @, a dot at the end, a port.
local HOST_BYTES_MAX = 253
local AUTHORITY_BYTES_MAX = 4096 + 1 + HOST_BYTES_MAX + 1 + 6

-- Scheme and authority of a job as imgq writes it: nothing has to be decoded.
local AS_WRITTEN = '^{"id":"%x+","url":"(https?)://([^/?#"\\]+)[/?#"]'

-- The host of a link, as `host.rs` names it; nil where there is none, or none that can be asked.
local function host_in(scheme, authority)
  if not scheme or #authority > AUTHORITY_BYTES_MAX then return nil end
  -- A greedy match finds the last @ in one go, where '[^@]*$' would begin anew at each byte.
  local host = string.lower(string.match(authority, '^.*@(.*)$') or authority)
  local name, port = string.match(host, '^(.*):(%d*)$')
  if name then
    local usual = string.lower(scheme) == 'https' and 443 or 80
    local number = tonumber(port) or usual
    host = number == usual and name or string.format('%s:%.0f', name, number)
  else
    name = host
  end
  if string.sub(name, -1) == '.' then name = string.sub(name, 1, -2) end
  -- Names are looked at by people and by programs that take nothing but text.
  if name == '' or #name > HOST_BYTES_MAX or string.find(name, '[^!-~]') then return nil end
  return host
end

-- The host of a job that was written as imgq writes it; nil of any other.
local function host_as_written(payload)
  if #payload > PAYLOAD_BYTES_MAX then return nil end
  return host_in(string.match(payload, AS_WRITTEN))
end

-- The host that a job's link is asked from; nil where there is none that can be seen. A worker puts a job whose link has to be
-- read as the URL standard does (a tab within the host, `%68ost`) back in its canonical form, for the next claim to see.
-- Then whether the payload had to be decoded for it: 64 KiB of the worst take 2.4 ms, 13 times what it takes to touch them.
local function host_of(payload)
  -- None that a claim of today let in.
  if #payload > PAYLOAD_BYTES_MAX then return nil end
  local scheme, authority = string.match(payload, AS_WRITTEN)
  if scheme then return host_in(scheme, authority) end
  if string.byte(payload) ~= 123 then return nil end
  -- Blanks that JSON does not know may follow. What is decoded is for looking only: what is written is never made of it.
  local fine, job = pcall(cjson.decode, (string.match(payload, '^.*}')))
  if not fine or type(job) ~= 'table' or type(job.url) ~= 'string' then return nil, true end
  if job.oversized ~= nil and job.oversized ~= cjson.null then return nil, true end
  return host_in(string.match(job.url, '^%s*([Hh][Tt][Tt][Pp][Ss]?)://([^/?#\\]+)')), true
end

-- Where a link redirects to, as `job.rs` writes it.
local REDIRECTS_TO = '^{"id":"%x+","url":"[^"\\]+","redirects_to":"([^"\\%c]+)"'
-- More redirects than are followed.
local TARGETS_MAX = 10

-- The hosts that a job waits for because its link leads there, one redirect after the other; nil of most jobs.
local function targets_of(payload)
  if #payload > PAYLOAD_BYTES_MAX or not string.find(payload, '"redirects_to":"', 1, true) then return nil end
  -- What is escaped in the link is not looked at.
  if string.find(payload, '\\', 1, true) then payload = string.gsub(payload, '\\.', '__') end
  local targets = {}
  for target in string.gmatch(string.match(payload, REDIRECTS_TO) or '', '[^ ]+') do
    if #target <= HOST_BYTES_MAX + 6 and #targets < TARGETS_MAX then targets[#targets + 1] = target end
  end
  return next(targets) and targets
end
