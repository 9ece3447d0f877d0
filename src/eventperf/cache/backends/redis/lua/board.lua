-- KEYS[1] a board: name -> when it was told (ms), '|', a note. ARGV: name, note, life in ms, how many at most.
-- Leaves the note, unless so many others live there; forgets those whose life is over. Returns {age in ms, note} of each.
local now, life, most = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])
local held = redis.pcall('HGETALL', KEYS[1])
if held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  redis.call('DEL', KEYS[1])
  held = {}
end
local live, known = {}, false
for k = 1, #held, 2 do
  local at, note = string.match(held[k + 1], '^(%d+)|(.*)$')
  if held[k] == ARGV[1] then known = true
  elseif at and now - at < life and #live < most then live[#live + 1] = { math.max(0, now - at), note }
  else redis.call('HDEL', KEYS[1], held[k]) end
end
if known or #live < most then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now) .. '|' .. ARGV[2])
  live[#live + 1] = { 0, ARGV[2] }
end
redis.call('PEXPIRE', KEYS[1], life)
return live
