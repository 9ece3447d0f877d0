-- Part of the scripts that store jobs.
-- ARGV from i on: groups, each: header, queue, level, key, delay ms, unique key, unique mode, n, jobs it waits for,
-- "success", "ended" or "failure", those jobs' ids, then n x (id, payload)

-- Let `id` wait for `parents`; returns how many are not there yet, or -1 when one of them was cancelled.
local function link(id, parents, when)
  local left, doomed = {}, false
  for _, parent in ipairs(parents) do
    local lives = call('HEXISTS', P .. 'j', parent) == 1
    if lives and (when == 'success' or call('HEXISTS', P .. 'X', parent) == 0) then
      left[#left + 1] = parent
    else
      if not lives and when == 'success' then
        local record = call('GET', P .. 'r:' .. parent)
        if not record or string.sub(record, 1, 1) == 'c' then doomed = true end
      end
      keep_children(parent, { id })
    end
  end
  if doomed then return -1, 'a job it waits for was cancelled or is not known' end
  if #left == 0 and in_vain(when, parents) then return -1, 'none of the jobs it waited for has failed' end
  for _, parent in ipairs(left) do
    call('RPUSH', P .. 'N:' .. parent, id .. US .. when)
    call('HINCRBY', P .. 'N', parent, 1)
  end
  if #left > 0 then call('HSET', P .. 'pd', id, #left) end
  return #left
end

-- The first job that another is to wait for and that is neither here nor pushed along, before anything is stored.
local function missing_parent(i, last)
  local links_at, pushed = {}, {}
  while i <= last do
    local n, links = tonumber(ARGV[i + 7]), tonumber(ARGV[i + 8])
    if links > 0 then links_at[#links_at + 1] = i end
    local first = i + 10 + links
    for k = 0, n - 1 do pushed[ARGV[first + 2 * k]] = true end
    i = first + 2 * n
  end
  for _, at in ipairs(links_at) do
    for k = 1, tonumber(ARGV[at + 8]) do
      local id = ARGV[at + 9 + k]
      if not pushed[id] and call('HEXISTS', P .. 'j', id) == 0 and call('EXISTS', P .. 'r:' .. id) == 0 then
        return id
      end
    end
  end
end

local function push_groups(i, last)
  local answer = {}
  local function head() return call('ZRANGE', P .. 'd', 0, 0, 'WITHSCORES')[2] end
  local before = nil
  while i <= last do
    local header, queue, level, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local delay_ms, unique, mode, n = tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7])
    local links, when, parents = tonumber(ARGV[i + 8]), ARGV[i + 9], {}
    for k = 1, links do parents[k] = ARGV[i + 9 + k] end
    if delay_ms > 0 then before = before or head() or '' end
    i = i + 10 + links
    local ids, tags = {}, tags_of((select(4, parse('0' .. header))))
    for k = 1, n do ids[k] = ARGV[i + 2 * (k - 1)] end
    local known = call('HMGET', P .. 'j', unpack(ids))
    local made, put = {}, {}
    for k = 1, n do
      local id, holder = ids[k], false
      if known[k] or made[id] then
        holder = id
      elseif unique ~= '' then
        local name = P .. 'u:' .. unique
        holder = call('GET', name)
        if not holder then
          if mode == 'w' or mode == 'r' then call('SET', name, id) else call('SET', name, id, 'PX', mode) end
        elseif holder == id and call('EXISTS', P .. 'r:' .. id) == 0 then
          holder = false
        end
      end
      if not holder and call('EXISTS', P .. 'r:' .. id) == 1 then holder = id end
      answer[#answer + 1] = holder or id
      if not holder then
        made[id] = true
        local blob = string.format('%d', now) .. header .. ARGV[i + 2 * (k - 1) + 1]
        local waits, why = 0, nil
        if links > 0 then waits, why = link(id, parents, when) end
        if waits < 0 then
          local q, type_, _, extras = parse(blob)
          inc(queue, 'enqueued')
          cancelled(id, q, type_, extras, 0, 0, '', 0, why, 60000, blob)
        else
          put[#put + 1] = id
          put[#put + 1] = blob
          for _, tag in ipairs(tags) do call('ZADD', P .. 't:' .. tag, now, id) end
          if waits > 0 then delay(id, queue, FAR)
          elseif delay_ms > 0 then delay(id, queue, exact + delay_ms)
          else ready(id, queue, level, key) end
        end
      end
    end
    i = i + 2 * n
    if #put > 0 then
      in_chunks('HSET', P .. 'j', put, 2000)
      inc(queue, 'enqueued', #put / 2)
      rate(queue, 'a', #put / 2)
      if delay_ms > 0 then
        if head() ~= before then woken[queue] = (woken[queue] or 0) + 1 end
      end
    end
  end
  return answer
end
