-- KEYS[1] the entry. ARGV: the new bytes, life in ms (0 for ever), the times of a value that its caller found of no use ('': none).
-- Writes unless a value is there; the load under way that has its lease there is refused then. Returns 1 when written.
local head, _, refusal = read(57)
if refusal then return refusal end
local kind = string.sub(head, 1, 2) == 'E1' and #head == 58 and string.sub(head, 3, 3) or ''
if kind == 'V' and (ARGV[3] == '' or string.sub(head, 35, 58) ~= ARGV[3]) then return 0 end
keep(ARGV[1], ARGV[2])
return 1
