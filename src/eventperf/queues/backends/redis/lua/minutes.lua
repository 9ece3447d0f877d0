-- Part of finish.lua and claim.lua: what is counted of each run, by the minute. Fields of a minute: the number of queue
-- and type, then d done, r retried, f failed, c cancelled, k its worker died (and nobody knows how long it ran), or w and
-- x with a bucket of the wait and of the run time.
local counted = {}

local function bucket_of(s)
  if s < 0.0001 then return 0 end
  return math.min(127, 1 + math.floor(4 * math.log(s / 0.0001) / math.log(2)))
end

-- How long a job could have run before it did, in seconds; nothing for one that waited for others.
local function waited(blob, extras, started)
  local born = tonumber(string.match(blob, '^%d+') or started)
  if extras ~= '' then
    local e = facts(extras)
    if e.f then return false end
    born = born + 1000 * (e.w or 0)
  end
  return math.max(0, (started - born) / 1000)
end

local function count_run(queue, type_, how, us, wait)
  local name = queue .. US .. type_
  local one = counted[name]
  if not one then one = {}; counted[name] = one end
  one[how] = (one[how] or 0) + 1
  if not us then return end
  local run = 'x' .. bucket_of(us / 1e6)
  one[run] = (one[run] or 0) + 1
  if wait then
    local slot = 'w' .. bucket_of(wait)
    one[slot] = (one[slot] or 0) + 1
  end
end

-- At most 200 series and 2,000 fields a minute; what comes beyond goes to a series of its own.
local function number_of(name, key)
  local known = call('HGET', P .. 'Mn', name)
  if known and call('HLEN', key) < 2000 then return known end
  if not known and call('HLEN', P .. 'Mn') < 200 then
    known = call('HLEN', P .. 'Mn') + 1
    call('HSET', P .. 'Mn', name, known)
    return known
  end
  call('HSET', P .. 'Mn', '(others)' .. US .. '(others)', 0)
  return 0
end

-- Open this minute, where another is: that one is over, and from now on one short text.
local function open_minute(minute)
  local open = call('GET', P .. 'Mc')
  if open == minute then return end
  if open then
    local all, text = call('HGETALL', P .. 'M:' .. open), {}
    for k = 1, #all, 2 do text[#text + 1] = all[k] .. '=' .. all[k + 1] end
    if #text > 0 then call('SET', P .. 'm:' .. open, table.concat(text, ' '), 'PX', 90000000) end
    call('DEL', P .. 'M:' .. open)
  end
  call('SET', P .. 'Mc', minute)
end

local function write_minutes()
  local names = {}
  for name in pairs(counted) do names[#names + 1] = name end
  local numbers, minute = read(P .. 'Mn', names), string.format('%d', math.floor(now / 60000))
  local key = P .. 'M:' .. minute
  for _, name in ipairs(names) do
    local fields, by = {}, {}
    for what, n in pairs(counted[name]) do
      local field = (numbers[name] or '') .. what
      fields[#fields + 1] = field
      by[field] = n
    end
    local before, put = numbers[name] and read(key, fields) or none, {}
    for _, field in ipairs(fields) do
      if not before[field] then put = nil break end
      put[#put + 1] = field
      put[#put + 1] = string.format('%.0f', (tonumber(before[field]) or 0) + by[field])
    end
    if put then in_chunks('HSET', key, put, 2000) -- only the open minute has fields
    else
      open_minute(minute)
      local number = number_of(name, key)
      for what, n in pairs(counted[name]) do call('HINCRBY', key, number .. what, n) end
    end
  end
end
