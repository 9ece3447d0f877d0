-- KEYS[1] a counter. ARGV: amount, life in ms from its creation (0 for ever).
-- Returns {value, 1 where something that is no number, or a key of another type, was there}: it begins anew.
local value, taken = redis.pcall('INCRBY', KEYS[1], ARGV[1]), 0
if type(value) == 'table' then
  if string.find(value.err, 'not an integer', 1, true) then
    if string.match(redis.call('GET', KEYS[1]), '^%-?%d+$') then return value end
  elseif not string.find(value.err, 'WRONGTYPE', 1, true) then return value end
  redis.call('SET', KEYS[1], ARGV[1])
  value, taken = tonumber(ARGV[1]), 1
end
if ARGV[2] ~= '0' and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {value, taken}
