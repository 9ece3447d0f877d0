-- ARGV: queue, ids. Forgets those that have ended there; answers how many.
need_none()
local q, wanted, n = ARGV[1], {}, 0

local function forget_tags(id, extras)
  for _, tag in ipairs(tags_of(extras)) do
    call('ZREM', P .. 't:' .. tag, id)
    call('ZREM', P .. 'te:' .. tag, id)
  end
end

-- Queue and extras of a final record.
local function place_of(record)
  local length, result, at = string.match(record, '^%a\31%d+\31%d+\31%d+\31%d+\31(%d+)\31(%-?%d+)\31[^\31]*\31()')
  if not length then return q, '' end
  local queue, _, _, extras = parse(string.sub(record, at + length + math.max(0, result)))
  return queue, extras
end

for k = 2, #ARGV do
  local id = ARGV[k]
  if call('ZREM', P .. 'x:' .. q, id) == 1 then
    forget_tags(id, select(4, parse(call('HGET', P .. 'j', id) or '')) or '')
    call('HDEL', P .. 'X', id)
    call('HDEL', P .. 'j', id)
    call('DEL', P .. 'f:' .. id)
    ended(id, 'c')
    n = n + 1
  elseif call('HEXISTS', P .. 'j', id) == 0 then
    local record = call('GET', P .. 'r:' .. id)
    local queue, extras = q, ''
    if record then queue, extras = place_of(record) end
    if queue == q then
      wanted[id] = true
      if record then
        forget_tags(id, extras)
        call('DEL', P .. 'r:' .. id, P .. 'f:' .. id)
        wanted[id] = 'gone'
        n = n + 1
      end
    end
  end
end
-- What is listed of them, beyond its record too.
if next(wanted) then
  for _, key in ipairs({ P .. 'D:' .. q, P .. 'C:' .. q }) do
    for _, record in ipairs(call('LRANGE', key, 0, -1)) do
      local id = string.match(record, '^%a\31%d+\31%d+\31%d+\31%d+\31%d+\31%-?%d+\31([^\31]*)\31')
      if id and wanted[id] and call('LREM', key, 1, record) == 1 and wanted[id] ~= 'gone' then
        wanted[id] = 'gone'
        n = n + 1
      end
    end
  end
end
flush()
return n
