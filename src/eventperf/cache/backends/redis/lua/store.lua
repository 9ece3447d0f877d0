-- KEYS[1] the entry. ARGV: token, the new bytes, life in ms (0 for ever), channel that wakes waiters.
-- Keeps the bytes only while the lease of the token stands. Returns 1 when kept.
local head, _, refusal = read(19)
if refusal then return refusal end
if not is_led_by(head, ARGV[1]) then return 0 end
keep(ARGV[2], ARGV[3])
if string.sub(head, 4, 4) == '1' then redis.call('PUBLISH', ARGV[4], KEYS[1]) end
return 1
