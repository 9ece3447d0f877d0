-- KEYS[1] a tag's record. ARGV: "c" to read or create, "i" to invalidate; a random part; life in s (0 for ever).
-- Returns {version, 1 when it was created by this call}.
local old = redis.call('GET', KEYS[1])
if ARGV[1] == 'c' and old then
  local left = redis.call('TTL', KEYS[1])
  if left >= 0 then
    if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1])
    elseif left < tonumber(ARGV[3]) / 2 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
  end
  return {old, 0}
end
local t = redis.call('TIME')
local new = ARGV[1] .. string.format('%013d', t[1] * 1000 + math.floor(t[2] / 1000)) .. '-' .. ARGV[2]
if ARGV[3] == '0' then redis.call('SET', KEYS[1], new) else redis.call('SET', KEYS[1], new, 'EX', ARGV[3]) end
return {new, 1}
