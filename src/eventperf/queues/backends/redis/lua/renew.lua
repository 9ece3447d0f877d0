-- ARGV: worker, card, lease ms, types, types..., then held: id, token
need_none()
local worker, lease = ARGV[1], tonumber(ARGV[3])
local until_ = now + 3 * lease
call('HSET', P .. 'wk', worker, until_ .. US .. ARGV[2])
local group = string.match(ARGV[2], '^{"g":"(%x+)"')
local is_new = group and call('HSET', P .. 'kg', group, until_) == 1 -- forgotten meanwhile: it must join again
local i = 5 + tonumber(ARGV[4])
know_types(5, i - 1, until_ - lease, until_)
local lost, cancel, keep = {}, {}, {}
local asked = ARGV[i] and call('EXISTS', P .. 'z') == 1
while ARGV[i] do
  local id = ARGV[i]
  local held = call('HGET', P .. 'a', id)
  if held and string.match(held, '^(%d+)') == ARGV[i + 1] then
    keep[#keep + 1] = now + lease
    keep[#keep + 1] = id
    if asked and call('HEXISTS', P .. 'z', id) == 1 then cancel[#cancel + 1] = id end
  else
    lost[#lost + 1] = id
  end
  i = i + 2
end
in_chunks('ZADD', P .. 'l', keep, 2000)
return { lost, cancel, is_new and 1 or 0 }
