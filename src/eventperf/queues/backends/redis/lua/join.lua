-- ARGV: group, lease ms, queues. Lets wake-ups of many queues come to one place.
need_none()
local group, alive = ARGV[1], {}
local known = call('HGETALL', P .. 'kg')
for k = 1, #known, 2 do
  if tonumber(known[k + 1]) > now then alive[known[k]] = true else call('HDEL', P .. 'kg', known[k]) end
end
call('HSET', P .. 'kg', group, now + 3 * tonumber(ARGV[2]))
local queues, put = {}, {}
for k = 3, #ARGV do queues[k - 2] = ARGV[k] end
local stored = read(P .. 'kq', queues)
for _, q in ipairs(queues) do
  local list = group
  for other in string.gmatch(stored[q] or '', '%x+') do
    if other ~= group and alive[other] then list = list .. ' ' .. other end
  end
  if list ~= stored[q] then put[#put + 1] = q; put[#put + 1] = list end
end
in_chunks('HSET', P .. 'kq', put, 2000)
return 1
