-- KEYS[1] a tag's record. ARGV: "c" to read or create, "i" to invalidate, "s" to invalidate and let settle;
-- a random part; life in s (0 for ever); how long loads are not to be stored, in ms.
-- Returns {version, 1 when it was created by this call, 1 where something else was there, of whatever type}.
local old, taken = redis.pcall('GET', KEYS[1]), 0
if type(old) == 'table' then
  if not string.find(old.err, 'WRONGTYPE', 1, true) then return old end
  old, taken = false, 1
elseif old and (#old > 64 or not string.match(old, '^[cis]%d%d%d%d%d%d%d%d%d%d%d%d%d%-[%w_-]*$')) then
  old, taken = false, 1
end
local at = now_ms()
-- Longer than any pause that can be asked for: left by something else, loads would never be stored again.
if old and tonumber(string.sub(old, 2, 14)) > at + 1e12 then old, taken = false, 1 end
if ARGV[1] == 'c' and old then
  local left = redis.call('TTL', KEYS[1])
  if left >= 0 then
    if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1])
    elseif left < tonumber(ARGV[3]) / 2 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
  end
  return {old, 0, 0}
end
local what = ARGV[1]
if what == 's' then at = at + tonumber(ARGV[4]) end
-- An invalidation while the tag settles makes no end of the settling.
if what == 'i' and old and string.sub(old, 1, 1) == 's' and tonumber(string.sub(old, 2, 14)) > at then
  what, at = 's', tonumber(string.sub(old, 2, 14))
end
if what == 's' and old and string.sub(old, 1, 1) == 's' then
  at = math.max(at, tonumber(string.sub(old, 2, 14)))
end
local new = what .. string.format('%013d', at) .. '-' .. ARGV[2]
if ARGV[3] == '0' then redis.call('SET', KEYS[1], new) else redis.call('SET', KEYS[1], new, 'EX', ARGV[3]) end
return {new, 1, taken}
