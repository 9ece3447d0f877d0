-- ARGV: verb, ...
local verb = ARGV[1]
-- Take a waiting, parked or delayed job out of its order and end it.
local function drop(id, blob, ttl)
  local q, type_, _, extras = parse(blob)
  local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
  unplace(id, blob)
  call('HDEL', P .. 'pd', id)
  cancelled(id, q, type_, extras, attempts, crashes, flags, 0, 'cancelled', ttl, blob)
end

-- Take away what stands in a queue's order without a record that can be read.
local function forget(id, q)
  for _, level in ipairs(levels(q)) do
    local name = q .. '|' .. level
    if call('ZREM', P .. 'L:' .. name, id) == 1 then
      if call('HINCRBY', P .. 'c', name, -1) == 0 then call('HDEL', P .. 'c', name) end
      inc(q, 'waiting', -1)
    end
  end
  call('HDEL', P .. 'j', id)
end

-- A job that is put back holds its unique key again; false where another has it by now.
local function take_unique(id, blob)
  local _, type_, _, extras = parse(blob)
  local e = facts(extras)
  if not e.u or e.m == 't' then return true end
  return call('SET', P .. 'u:' .. type_ .. '|' .. e.u, id, 'NX') and true or call('GET', P .. 'u:' .. type_ .. '|' .. e.u) == id
end

if verb == 'cancel' then -- ttl, ids
  need_none()
  local answer = {}
  for k = 3, #ARGV do
    local id = ARGV[k]
    local blob, held = call('HGET', P .. 'j', id), call('HGET', P .. 'a', id)
    if held then
      call('HSET', P .. 'z', id, '1')
      local worker = string.match(held, '^%d+\31%d+\31(.*)$') or ''
      if partition then call('PUBLISH', 'eventperf:' .. space .. ':to:' .. worker, 'c')
      else
        call('RPUSH', P .. 'W:' .. worker, 'c')
        call('PEXPIRE', P .. 'W:' .. worker, 60000)
      end
      answer[#answer + 1] = 1
    elseif blob and call('HEXISTS', P .. 'X', id) == 0 and not fault(blob) then
      drop(id, blob, tonumber(ARGV[2]))
      answer[#answer + 1] = 1
    else
      answer[#answer + 1] = 0
    end
  end
  flush()
  return answer
elseif verb == 'replay' then -- queue, limit (-1: all), ids or none
  need_memory()
  local q, limit, ids = ARGV[2], tonumber(ARGV[3]), {}
  if #ARGV > 3 then
    for k = 4, #ARGV do ids[#ids + 1] = ARGV[k] end
  else
    ids = call('ZRANGE', P .. 'x:' .. q, 0, limit > 0 and limit - 1 or limit < 0 and -1 or 0)
    if limit == 0 then ids = {} end
  end
  local n = 0
  for _, id in ipairs(ids) do
    local blob = (limit < 0 or n < limit) and call('ZSCORE', P .. 'x:' .. q, id) and call('HGET', P .. 'j', id)
    if blob and not fault(blob) and take_unique(id, blob) then
      local _, _, level, extras = parse(blob)
      call('ZREM', P .. 'x:' .. q, id)
      local dead, flags = call('HGET', P .. 'X', id) or '', 'n'
      local length, text = string.match(dead, '^%a\31%d+\31%d+\31%d+\31%d+\31(%d+)\31%-?%d+\31[^\31]*\31(.*)$')
      local from = text and string.find(text, '\30', 1, true)
      if from then
        flags = 'nh'
        call('HSET', P .. 'h', id, string.sub(text, from, tonumber(length)))
      end
      call('HDEL', P .. 'X', id)
      set_mutable(id, 0, 0, flags)
      ready(id, q, level, extra(extras, 'k') or '')
      inc(q, 'replayed')
      n = n + 1
    end
  end
  flush()
  return n
elseif verb == 'pause' then -- queue, 0 or 1
  need_none()
  if ARGV[3] == '1' then call('HSET', P .. 'p', ARGV[2], '1')
  else
    call('HDEL', P .. 'p', ARGV[2])
    wake(ARGV[2], 8)
  end
  return 1
elseif verb == 'purge' then -- queue, state, ttl, at most; returns how many, call again until 0
  local q, state, ttl, most, n = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), 0
  if state == 'completed' then
    n = call('LLEN', P .. 'D:' .. q)
    for _, record in ipairs(call('LRANGE', P .. 'D:' .. q, 0, -1)) do
      local id = string.match(record, '^%a\31%d+\31%d+\31%d+\31%d+\31%d+\31%-?%d+\31([^\31]*)\31')
      if id then call('DEL', P .. 'r:' .. id) end
    end
    call('DEL', P .. 'D:' .. q)
    return { n, 0 }
  elseif state == 'failed' then
    local ids = call('ZPOPMIN', P .. 'x:' .. q, most)
    for k = 1, #ids, 2 do
      call('HDEL', P .. 'X', ids[k])
      untag(ids[k], select(4, parse(call('HGET', P .. 'j', ids[k]) or '')) or '', 0)
      call('HDEL', P .. 'j', ids[k])
      ended(ids[k], 'c')
    end
    flush()
    return { #ids / 2, #ids / 2 == most and 1 or 0 }
  elseif state == 'waiting' then
    local ids = {}
    for _, level in ipairs(levels(q)) do
      if #ids < most then
        for _, id in ipairs(call('ZRANGE', P .. 'L:' .. q .. '|' .. level, 0, most - #ids - 1)) do ids[#ids + 1] = id end
      end
    end
    for _, type_ in ipairs(call('HKEYS', P .. 'P')) do
      for _, id in ipairs(call('ZRANGE', P .. 'P:' .. type_, 0, -1)) do
        local blob = call('HGET', P .. 'j', id)
        if blob and parse(blob) == q then ids[#ids + 1] = id end
      end
    end
    for _, id in ipairs(call('HKEYS', P .. 'Y')) do
      local blob = #ids < most and call('HGET', P .. 'j', id)
      if blob and parse(blob) == q then ids[#ids + 1] = id end
    end
    for _, id in ipairs(ids) do
      local blob = call('HGET', P .. 'j', id)
      if blob and not fault(blob) then drop(id, blob, ttl) else forget(id, q) end
    end
    flush()
    return { #ids, #ids >= most and 1 or 0 }
  else
    local from = tonumber(ARGV[6])
    local ids = call('ZRANGE', P .. 'd', from, from + most - 1)
    for _, id in ipairs(ids) do
      local blob = call('HGET', P .. 'j', id)
      if blob and parse(blob) == q and not fault(blob) then drop(id, blob, ttl); n = n + 1 end
    end
    flush()
    return { n, #ids == most and 1 or 0, from + #ids - n }
  end
elseif verb == 'list' then -- queue, state, offset, limit
  local q, state, offset, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
  if state == 'completed' then return call('LRANGE', P .. 'D:' .. q, offset, offset + limit - 1) end
  if state == 'failed' then return call('ZREVRANGE', P .. 'x:' .. q, offset, offset + limit - 1) end
  local ids, skip = {}, offset
  if state == 'waiting' then
    for _, level in ipairs(levels(q)) do
      local name = P .. 'L:' .. q .. '|' .. level
      local n = call('ZCARD', name)
      if skip >= n then
        skip = skip - n
      elseif #ids < limit then
        for _, id in ipairs(call('ZRANGE', name, skip, skip + limit - #ids - 1)) do ids[#ids + 1] = id end
        skip = 0
      end
    end
    for _, id in ipairs(#ids < limit and call('HKEYS', P .. 'Y') or {}) do -- held back by a limit: after the others
      local blob = call('HGET', P .. 'j', id)
      if blob and parse(blob) == q then
        if skip > 0 then skip = skip - 1 elseif #ids < limit then ids[#ids + 1] = id end
      end
    end
    return ids
  end
  for _, id in ipairs(call('ZRANGE', P .. (state == 'delayed' and 'd' or 'l'), 0, 9999)) do
    local blob = call('HGET', P .. 'j', id)
    if blob and parse(blob) == q then
      if skip > 0 then skip = skip - 1 elseif #ids < limit then ids[#ids + 1] = id end
    end
  end
  return ids
end
return redis.error_reply('unknown verb ' .. verb)
