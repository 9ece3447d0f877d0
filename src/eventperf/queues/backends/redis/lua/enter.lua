-- ARGV: worker, card, lease ms, types, types..., then held ids. Hands back what this worker was given in
-- replies that never reached it.
need_memory()
local worker, lease = ARGV[1], tonumber(ARGV[3])
local until_ = now + 3 * lease
call('HSET', P .. 'wk', worker, until_ .. US .. ARGV[2])
local i, held, n = 5 + tonumber(ARGV[4]), {}, 0
know_types(5, i - 1, until_, until_)
while ARGV[i] do held[ARGV[i]] = true; i = i + 1 end
local all = call('HGETALL', P .. 'a')
for k = 1, #all, 2 do
  local id = all[k]
  if string.match(all[k + 1], '^%d+\31%d+\31(.*)$') == worker and not held[id] then
    local blob = call('HGET', P .. 'j', id)
    call('HDEL', P .. 'a', id)
    call('ZREM', P .. 'l', id)
    let_go(id)
    if blob then
      local q, _, level = parse(blob)
      inc(q, 'active', -1)
      if fault(blob) then delay(id, q, now) else ready(id, q, level, '', true) end
      n = n + 1
    end
  end
end
for _, other in ipairs(call('HKEYS', P .. 'wk')) do
  local text = call('HGET', P .. 'wk', other)
  if (tonumber(string.match(text, '^%d+')) or 0) < now then call('HDEL', P .. 'wk', other) end
end
flush()
return n
