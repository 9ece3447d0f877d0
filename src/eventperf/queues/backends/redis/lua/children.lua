-- ARGV: id, how many at most. Answers rows (child's id, as of look.lua), those that have been let go first.
local most, seen, answer = tonumber(ARGV[2]), {}, {}
for _, key in ipairs({ 'f:', 'N:' }) do
  for _, entry in ipairs(call('LRANGE', P .. key .. ARGV[1], 0, most - 1)) do
    local child = string.match(entry, '^[^\31]*')
    local row = not seen[child] and #answer < most and look(child)
    seen[child] = true
    if row then answer[#answer + 1] = { child, row } end
  end
end
return answer
