-- KEYS[1] the entry. ARGV: token, lease in ms, "1" to take a value that the caller found unusable.
-- Returns {state, ms, taken}: 1 granted (ms: server time), 0 held by another (ms left), 2 a value is there, 3 settling;
-- taken is 1 where something that is no entry, or a key of another type, was there and the caller did not know.
local now, lease = now_ms(), tonumber(ARGV[2])
local head, other, refusal = read(32)
if refusal then return refusal end
local kind = string.sub(head, 1, 2) == 'E1' and #head == 33 and string.sub(head, 3, 3) or ''
local ends = string.match(string.sub(head, 21, 33), '^%d+$') and tonumber(string.sub(head, 21, 33))
if (kind ~= 'V' and kind ~= 'L' and kind ~= 'T') or not ends then kind = '' end
if kind == 'V' and ARGV[3] ~= '1' then return {2, 0, 0} end
local left = kind == '' and 0 or ends - now
-- Leases and marks of ours end with their key: one that would stay for ever was left by something else.
if (kind == 'T' or (kind == 'L' and left > 0)) and redis.call('PTTL', KEYS[1]) < 0 then kind, left = '', 0 end
if kind == 'T' then return {3, now, 0} end
if left > 0 then
  if string.sub(head, 4, 4) ~= '1' then redis.call('SETRANGE', KEYS[1], 3, '1') end
  return {0, left, 0}
end
local stop = string.format('%013d', now + lease)
if kind == 'V' then
  redis.call('SETRANGE', KEYS[1], 4, ARGV[1] .. stop)
  local pttl = redis.call('PTTL', KEYS[1])
  if pttl >= 0 and pttl < lease then redis.call('PEXPIRE', KEYS[1], lease) end
  return {1, now, 0}
end
redis.call('SET', KEYS[1], 'E1L0' .. ARGV[1] .. stop .. '-', 'PX', lease + 1000)
return {1, now, kind == '' and ARGV[3] ~= '1' and (other or #head > 0) and 1 or 0}
