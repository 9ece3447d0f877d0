-- ARGV: queues. One instant: counters, paused queues, dead kept, workers, rates, heads of all classes.
local rates, heads, dead = {}, {}, {}
local bucket = math.floor(now / 10000)
for b = bucket - 6, bucket do rates[#rates + 1] = call('HGETALL', P .. 'R:' .. b) end
for _, q in ipairs(ARGV) do dead[#dead + 1] = call('ZCARD', P .. 'x:' .. q) end
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
return { string.format('%d', now), call('HGETALL', P .. 'n'), call('HKEYS', P .. 'p'), dead, call('HVALS', P .. 'wk'), rates,
  heads }
