-- Part of the scripts that take jobs out of their order.
-- Take a waiting, parked or delayed job out of its place.
local function unplace(id, blob)
  local q, type_, level, extras = parse(blob)
  if call('ZREM', P .. 'd', id) == 1 then
    inc(q, 'delayed', -1)
    return
  end
  local name = q .. '|' .. level
  local tag = call('ZSCORE', P .. 'L:' .. name, id)
  if tag then
    call('ZREM', P .. 'L:' .. name, id)
    local is_empty = call('HINCRBY', P .. 'c', name, -1) == 0
    if is_empty then call('HDEL', P .. 'c', name) end
    give_turn_back(extras, name, tonumber(tag), is_empty)
  elseif call('ZREM', P .. 'P:' .. type_, id) == 1 then
    if call('EXISTS', P .. 'P:' .. type_) == 0 then
      call('HDEL', P .. 'P', type_)
      call('ZREM', P .. 'PT', type_)
    end
  else
    local bucket = call('HGET', P .. 'Y', id)
    if bucket then
      call('ZREM', P .. 'B:' .. bucket, id)
      call('HDEL', P .. 'Y', id)
    end
  end
  inc(q, 'waiting', -1)
end

-- The priorities that wait in a queue, the highest first.
local levels = function(q)
  local found = {}
  for _, name in ipairs(call('HKEYS', P .. 'c')) do
    local queue, level = string.match(name, '^(.*)|(%d+)$')
    if queue == q then found[#found + 1] = tonumber(level) end
  end
  table.sort(found, function(a, b) return a > b end)
  return found
end
