-- KEYS[1] an entry whose payload is 'i' and a whole number in digits. ARGV: what to add ('': nothing, only tell).
-- Its life stays. Returns {state, sum, rest of the life in ms (-1 for ever)}: state 1 added, 0 not there, 2 no such number, or one
-- beyond what Lua counts exactly.
local blob, _, refusal = read(90)
if refusal then return refusal end
if string.sub(blob, 1, 3) ~= 'E1V' then return {0, 0, 0} end
local number = string.sub(blob, 63, 66) == '\0\0\0\0' and tonumber(string.match(blob, '^i(%-?%d+)$', 67))
local sum = number and ARGV[1] ~= '' and number + tonumber(ARGV[1])
if not sum or math.abs(number) > 9e15 or math.abs(sum) > 9e15 then
  return {2, 0, redis.call('PTTL', KEYS[1])}
end
local new = string.format('%.0f', sum)
redis.call('SET', KEYS[1], string.sub(blob, 1, 66) .. 'i' .. new, 'KEEPTTL')
return {1, new, 0}
