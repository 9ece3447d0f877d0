-- ARGV: ids. Per job what look.lua tells.
local answer = {}
for k, id in ipairs(ARGV) do answer[k] = look(id) end
return answer
