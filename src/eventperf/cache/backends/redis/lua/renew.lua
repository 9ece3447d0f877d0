-- KEYS[1] the entry. ARGV: token, lease in ms. Returns 1 while the lease still stands.
local head = redis.pcall('GETRANGE', KEYS[1], 0, 19)
local other = type(head) == 'table'
if other then
  if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  head = ''
end
if string.sub(head, 1, 2) ~= 'E1' or string.sub(head, 5, 20) ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
redis.call('SETRANGE', KEYS[1], 20, string.format('%013d', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2]))
local pttl = redis.call('PTTL', KEYS[1])
if pttl >= 0 and pttl < ARGV[2] + 1000 then redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1000) end
return 1
