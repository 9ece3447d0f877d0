-- KEYS[1] the entry. ARGV: lease in ms. Whoever leads there has so long to renew, however far away its end was set: by a client
-- with another clock, or with another idea of the format. Returns 1 when there was something to shorten.
local head, _, refusal = read(32)
if refusal then return refusal end
local ends = string.match(head, '^E1[LV]' .. string.rep('.', 17) .. '(%d+)$')
local latest = now_ms(ARGV[1])
if not ends or tonumber(ends) <= latest then return 0 end
redis.call('SETRANGE', KEYS[1], 20, string.format('%013d', latest))
return 1
