-- ARGV: limit, jobs to look at, type, text, tag (each or nothing), states, states..., queues, queues...,
-- then where to go on: strand, id, score. Answers rows (id, as of look.lua) and where the next call goes on.
-- Each strand is one ordered set or list; they follow one another by their names here.
local limit, most, type_, text, tag = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local i, wanted, queues, strands = 7, {}, {}, {}
local function strand(name, key, kind) strands[#strands + 1] = { name = name, key = P .. key, kind = kind } end
local states = {}
for k = 1, tonumber(ARGV[6]) do states[k] = ARGV[i]; i = i + 1 end
local order = {}
for k = 1, tonumber(ARGV[i]) do order[k] = ARGV[i + k]; queues[order[k]] = true end
i = i + 1 + #order
local LETTERS = { active = 'a', waiting = 'w', delayed = 'd', failed = 'f', completed = 'd', cancelled = 'c' }
local ENDED = { failed = true, completed = true, cancelled = true }
local live, gone = {}, {}
for _, state in ipairs(states) do (ENDED[state] and gone or live)[LETTERS[state]] = true end

local function waiting_strands(at)
  for n, q in ipairs(order) do
    for _, level in ipairs(levels(q)) do
      strand(string.format('%d|a%05d|%04d', at, n, 1000 - level), 'L:' .. q .. '|' .. level, 'up')
    end
  end
  for _, name in ipairs(call('HKEYS', P .. 'P')) do strand(at .. '|p' .. name, 'P:' .. name, 'up') end
  for _, name in ipairs(call('ZRANGE', P .. 'G', 0, 99)) do strand(at .. '|q' .. name, 'B:' .. name, 'up') end
end

if tag ~= '' then
  strand('0', 't:' .. tag, 'down')
  strand('1', 'te:' .. tag, 'down')
else
  for at, state in ipairs(states) do
    if state == 'active' then strand(at .. '|', 'l', 'up')
    elseif state == 'waiting' then waiting_strands(at)
    elseif state == 'delayed' then strand(at .. '|', 'd', 'up')
    else
      local key = state == 'failed' and 'x:' or state == 'completed' and 'D:' or 'C:'
      for n, q in ipairs(order) do
        strand(string.format('%d|%05d', at, n), key .. q, state == 'failed' and 'down' or 'list')
      end
    end
  end
end
table.sort(strands, function(a, b) return a.name < b.name end)

local HEAD = '^(%a)\31%d+\31%d+\31%d+\31%d+\31(%d+)\31(%-?%d+)\31([^\31]*)\31()'
-- A final record without its runs.
local function brief(record)
  local _, length, _, _, at = string.match(record, HEAD)
  local cut = at and string.find(record, '\30', at, true)
  if not cut or cut >= at + length then return record end
  local head = string.gsub(string.sub(record, 1, at - 1), '^(%a\31%d+\31%d+\31%d+\31%d+\31)%d+', '%1' .. cut - at)
  return head .. string.sub(record, at, cut - 1) .. string.sub(record, at + length)
end

local function error_of(record)
  local _, length, _, _, at = string.match(record, HEAD)
  local said = at and string.sub(record, at, at + length - 1) or ''
  local cut = string.find(said, '\30', 1, true)
  return cut and string.sub(said, 1, cut - 1) or said
end

local function has(said) return string.find(said, text, 1, true) end

local function fits(id, blob, record, said)
  if not blob then return false end
  local q, kind = parse(blob)
  if not queues[q] or (type_ ~= '' and kind ~= type_) then return false end
  if text == '' or has(id) then return true end
  local at = string.match(blob, '^%d+\31[^\31]*\31[^\31]*\31%d+\31[^\31]*\31()') or 1
  if string.find(blob, text, at, true) then return true end
  return has(record and error_of(record) or said or '')
end

local answer, looked, n = {}, 0, 0
local function show(id, row)
  if row[1] == 'r' then row[2] = brief(row[2]) else row[8] = '' end
  n = n + 1
  answer[n] = { id, row }
end

local function try_job(id, blob, said, dead)
  if tag == '' then
    if fits(id, blob, dead, said) then show(id, look(id, blob)) end
    return
  end
  local row = look(id, blob)
  if not row then return end
  if row[1] == 'r' then
    local letter, length, result, _, at = string.match(row[2], HEAD)
    if not letter then return end
    local rest = string.sub(row[2], at + length + math.max(0, result))
    if gone[letter] and fits(id, rest, row[2]) then show(id, row) end
  elseif live[row[1]] and fits(id, row[2], nil, row[7]) then show(id, row) end
end

local function try_record(record)
  local _, length, result, id, at = string.match(record, HEAD)
  if id and fits(id, string.sub(record, at + length + math.max(0, result)), record) then show(id, { 'r', record }) end
end

local function first_of(one, id, score)
  if one.kind == 'list' then return tonumber(score) + 1 end
  local down = one.kind == 'down'
  local rank = call(down and 'ZREVRANK' or 'ZRANK', one.key, id)
  if rank then return rank + 1 end
  if down then return call('ZCOUNT', one.key, '(' .. score, '+inf') end
  return call('ZCOUNT', one.key, '-inf', '(' .. score)
end

local function read(one, from, count)
  if one.kind == 'list' then return call('LRANGE', one.key, from, from + count - 1) end
  local found = call(one.kind == 'down' and 'ZREVRANGE' or 'ZRANGE', one.key, from, from + count - 1, 'WITHSCORES')
  local ids, scores = {}, {}
  for k = 1, #found, 2 do ids[#ids + 1] = found[k]; scores[#scores + 1] = found[k + 1] end
  return ids, scores
end

for _, one in ipairs(strands) do
  if not ARGV[i] or one.name >= ARGV[i] then
    local from = one.name == ARGV[i] and first_of(one, ARGV[i + 1], ARGV[i + 2]) or 0
    while true do
      local count = math.min(type_ == '' and text == '' and limit or 250, most - looked)
      local found, scores = read(one, from, count)
      local blobs = scores and #found > 0 and call('HMGET', P .. 'j', unpack(found)) or {}
      local said, dead = {}, {}
      if text ~= '' and scores and #found > 0 then
        said, dead = call('HMGET', P .. 'e', unpack(found)), call('HMGET', P .. 'X', unpack(found))
      end
      for k, id in ipairs(found) do
        if scores then try_job(id, blobs[k], said[k], dead[k]) else try_record(id) end
        looked = looked + 1
        if n == limit or looked >= most then
          return { answer, { one.name, scores and id or '', scores and scores[k] or string.format('%d', from + k - 1) } }
        end
      end
      from = from + #found
      if #found < count then break end
    end
  end
end
return { answer }
