-- KEYS[1] the entry. ARGV: token, the new bytes, life in ms (0 for ever), channel that wakes waiters.
-- Keeps the bytes only while the lease of the token stands. Returns 1 when kept.
local head = redis.pcall('GETRANGE', KEYS[1], 0, 19)
local other = type(head) == 'table'
if other then
  if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  head = ''
end
if string.sub(head, 1, 2) ~= 'E1' or string.sub(head, 5, 20) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if string.sub(head, 4, 4) == '1' then redis.call('PUBLISH', ARGV[4], KEYS[1]) end
return 1
