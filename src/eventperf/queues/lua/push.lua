-- ARGV: groups, each: header, queue, level, key, delay ms, unique key, unique mode, n, then n x (id, payload)
local answer, i, head = {}, 1, call('ZRANGE', P .. 'd', 0, 0, 'WITHSCORES')[2]
while ARGV[i] do
  local header, queue, level, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local delay_ms, unique, mode, n = tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7])
  i = i + 8
  local ids = {}
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
      put[#put + 1] = id
      put[#put + 1] = string.format('%d', now) .. header .. ARGV[i + 2 * (k - 1) + 1]
      if delay_ms > 0 then delay(id, queue, now + delay_ms) else ready(id, queue, level, key) end
    end
  end
  i = i + 2 * n
  if #put > 0 then
    in_chunks('HSET', P .. 'j', put, 2000)
    inc(queue, 'enqueued', #put / 2)
    rate(queue, 'a', #put / 2)
    if delay_ms > 0 then
      local first = call('ZRANGE', P .. 'd', 0, 0, 'WITHSCORES')[2]
      if first ~= head then woken[queue] = (woken[queue] or 0) + 1 end
    end
  end
end
flush()
return answer
