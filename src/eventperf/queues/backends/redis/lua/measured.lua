-- ARGV: first minute, or nothing for as many as are kept. Now, the names, and from the first minute on: minute, text.
local names, found = call('HGETALL', P .. 'Mn'), {}
local last = math.floor(now / 60000)
local first = math.max(tonumber(ARGV[1]), last - 1440)
for from = first, last, 500 do
  local keys = {}
  for minute = from, math.min(from + 499, last) do keys[#keys + 1] = P .. 'm:' .. string.format('%d', minute) end
  for k, text in ipairs(call('MGET', unpack(keys))) do
    if text then found[#found + 1] = from + k - 1; found[#found + 1] = text end
  end
end
local open = call('GET', P .. 'Mc')
if open and tonumber(open) >= first then
  local all, text = call('HGETALL', P .. 'M:' .. open), {}
  for k = 1, #all, 2 do text[#text + 1] = all[k] .. '=' .. all[k + 1] end
  found[#found + 1] = tonumber(open)
  found[#found + 1] = table.concat(text, ' ')
end
return { string.format('%d', now), names, found }
