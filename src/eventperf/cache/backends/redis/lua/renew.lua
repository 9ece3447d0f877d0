-- KEYS[1] the entry. ARGV: token, lease in ms. Returns 1 while the lease still stands.
local head, _, refusal = read(19)
if refusal then return refusal end
if not is_led_by(head, ARGV[1]) then return 0 end
redis.call('SETRANGE', KEYS[1], 20, string.format('%013d', now_ms(ARGV[2])))
local pttl = redis.call('PTTL', KEYS[1])
if pttl >= 0 and pttl < ARGV[2] + 1000 then redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1000) end
return 1
