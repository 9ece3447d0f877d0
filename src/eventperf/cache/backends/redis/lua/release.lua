-- KEYS[1] the entry. ARGV: token, channel. The load failed: let the next caller try at once.
local head = redis.pcall('GETRANGE', KEYS[1], 0, 19)
local other = type(head) == 'table'
if other then
  if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  head = ''
end
if string.sub(head, 1, 2) ~= 'E1' or string.sub(head, 5, 20) ~= ARGV[1] then return 0 end
if string.sub(head, 3, 3) == 'L' then redis.call('UNLINK', KEYS[1])
else redis.call('SETRANGE', KEYS[1], 3, string.rep('0', 30)) end
if string.sub(head, 4, 4) == '1' then redis.call('PUBLISH', ARGV[2], KEYS[1]) end
return 1
