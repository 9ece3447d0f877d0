-- One instant: counters, paused queues, dead kept of each queue that ever had some, workers, rates, heads of all
-- classes. What it costs grows with the queues that are used, not with those that are declared.
local rates, heads, dead, all = {}, {}, {}, call('HGETALL', P .. 'n')
local bucket = math.floor(now / 10000)
for b = bucket - 6, bucket do rates[#rates + 1] = call('HGETALL', P .. 'R:' .. b) end
for k = 1, #all, 2 do
  local q = string.match(all[k], '^(.*):failed$')
  if q then
    dead[#dead + 1] = q
    dead[#dead + 1] = call('ZCARD', P .. 'x:' .. q)
  end
end
for _, name in ipairs(call('HKEYS', P .. 'c')) do
  local id = call('ZRANGE', P .. 'L:' .. name, 0, 0)[1]
  local blob = id and call('HGET', P .. 'j', id)
  if blob then
    local q, _, _, extras = parse(blob)
    local born = (tonumber(string.match(blob, '^%d+')) or now) + 1000 * (extra(extras, 'w') or 0)
    heads[#heads + 1] = q
    heads[#heads + 1] = now - born
  end
end
call('HSETNX', P .. 'n', '#born', now)
return { string.format('%d', now), all, call('HKEYS', P .. 'p'), dead, call('HVALS', P .. 'wk'), rates,
  heads }
