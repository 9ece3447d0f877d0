-- ARGV: id, token, progress or '', step or ''
need_none()
local id = ARGV[1]
local held = call('HGET', P .. 'a', id)
if not held or string.match(held, '^(%d+)') ~= ARGV[2] then return 0 end
local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
if ARGV[3] ~= '' then
  call('HSET', P .. 'g', id, ARGV[3])
  if not string.find(flags, 'g', 1, true) then flags = flags .. 'g' end
end
if ARGV[4] ~= '' then
  call('SADD', P .. 'o:' .. id, ARGV[4])
  if not string.find(flags, 's', 1, true) then flags = flags .. 's' end
end
set_mutable(id, attempts, crashes, flags)
return 1
