-- ARGV: ids. Per job that has ended its record, else false; two commands for all of them.
local answer, keys, dead = {}, {}, call('HMGET', P .. 'X', unpack(ARGV))
for k, id in ipairs(ARGV) do keys[k] = P .. 'r:' .. id end
for k, record in ipairs(call('MGET', unpack(keys))) do
  if record then answer[k] = { 'r', record }
  elseif dead[k] then
    local blob = call('HGET', P .. 'j', ARGV[k])
    answer[k] = blob and { 'r', dead[k] .. blob } or false
  else answer[k] = false end
end
return answer
