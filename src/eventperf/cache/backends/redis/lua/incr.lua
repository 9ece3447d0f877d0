-- KEYS[1] a counter. ARGV: amount, life in ms from its creation (0 for ever).
-- Returns {value in digits (a number of Lua is exact to 53 bits only), what happened}: 0 added, 1 where something that is no
-- number, or a key of another type, was there: it begins anew; 2 it would leave 64 bits: nothing was done.
local done, taken = redis.pcall('INCRBY', KEYS[1], ARGV[1]), 0
if type(done) == 'table' then
  if string.find(done.err, 'would overflow', 1, true) then return {'', 2} end
  if string.find(done.err, 'not an integer', 1, true) then
    if string.match(redis.call('GET', KEYS[1]), '^%-?%d+$') then return {'', 2} end
  elseif not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
  redis.call('SET', KEYS[1], ARGV[1])
  taken = 1
end
if ARGV[2] ~= '0' and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {redis.call('GET', KEYS[1]), taken}
