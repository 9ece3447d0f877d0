-- ARGV: id, delay ms, priority, queue (each or nothing), 1 with a payload, payload, its version (or nothing).
-- Answers w, d, a for the state it was found in, r and a letter for an ended one, p for a time for a job that waits for others, nothing for an unknown one.
need_memory()
local id, wait, priority, queue = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local blob = call('HGET', P .. 'j', id)
if not blob then
  local record = call('GET', P .. 'r:' .. id)
  return record and 'r' .. string.sub(record, 1, 1) or ''
end
if call('HEXISTS', P .. 'X', id) == 1 then return 'rf' end
if call('HEXISTS', P .. 'a', id) == 1 then return 'a' end
local due, follows = call('ZSCORE', P .. 'd', id), call('HEXISTS', P .. 'pd', id) == 1
if follows and wait then return 'p' end
local state = due and 'd' or 'w'
if fault(blob) then return 'x' end
local created, at = string.match(blob, '^(%d+)\31[^\31]*\31[^\31]*\31%d+\31[^\31]*\31()')
local q, type_, level, extras = parse(blob)
local payload = ARGV[5] == '1' and ARGV[6] or string.sub(blob, at)
if wait or ARGV[5] == '1' then
  local e = extras ~= '' and cjson.decode(extras) or {}
  if wait then e.w = math.max(0, (exact + wait - tonumber(created)) / 1000) end
  if ARGV[5] == '1' and ARGV[7] ~= '' then e.v = ARGV[7] ~= '1' and tonumber(ARGV[7]) or nil end
  extras = next(e) and cjson.encode(e) or ''
end
local to, at_level = queue ~= '' and queue or q, priority or level
local fresh = table.concat({ created, to, type_, string.format('%d', at_level), extras, payload }, US)
if wait or priority or queue ~= '' then
  unplace(id, blob)
  call('HSET', P .. 'j', id, fresh)
  if to ~= q then
    inc(q, 'enqueued', -1)
    inc(to, 'enqueued', 1)
  end
  if wait and wait > 0 then delay(id, to, exact + wait)
  elseif due and not wait then delay(id, to, due)
  else ready(id, to, string.format('%d', at_level), extra(extras, 'k') or '') end
  woken[to] = (woken[to] or 0) + 1
  flush()
else
  call('HSET', P .. 'j', id, fresh)
end
return state
