-- KEYS[1] the entry. ARGV: 16 bytes of soft and hard end, life in ms (0 for ever). Returns 1 when it was there.
local head = redis.call('GETRANGE', KEYS[1], 0, 2)
if head ~= 'E1V' then return 0 end
redis.call('SETRANGE', KEYS[1], 42, ARGV[1])
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
