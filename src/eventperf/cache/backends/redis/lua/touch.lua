-- KEYS[1] the entry. ARGV: 16 bytes of soft and hard end, life in ms (0 for ever). Returns 1 when it was there.
-- What is small is written anew, in one command less.
local blob, _, refusal = read(4095)
if refusal then return refusal end
if string.sub(blob, 1, 3) ~= 'E1V' or #blob < 66 then return 0 end
if #blob < 4096 then
  blob = string.sub(blob, 1, 42) .. ARGV[1] .. string.sub(blob, 59)
  keep(blob, ARGV[2])
  return 1
end
redis.call('SETRANGE', KEYS[1], 42, ARGV[1])
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
