-- KEYS[1] the entry. ARGV: token, channel. The load failed: let the next caller try at once.
local head, _, refusal = read(19)
if refusal then return refusal end
if not is_led_by(head, ARGV[1]) then return 0 end
if string.sub(head, 3, 3) == 'L' then redis.call('UNLINK', KEYS[1])
else redis.call('SETRANGE', KEYS[1], 3, string.rep('0', 30)) end
if string.sub(head, 4, 4) == '1' then redis.call('PUBLISH', ARGV[2], KEYS[1]) end
return 1
