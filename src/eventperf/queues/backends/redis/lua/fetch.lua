-- ARGV: ids. Per job: state, blob or record, due, held, mutable, progress, error
local answer = {}
for k, id in ipairs(ARGV) do
  local row = false
  local record = call('GET', P .. 'r:' .. id)
  local blob = call('HGET', P .. 'j', id)
  if record then
    row = { 'r', record }
  elseif blob then
    local dead = call('HGET', P .. 'X', id)
    if dead then
      row = { 'r', dead .. blob }
    else
      local held, due = call('HGET', P .. 'a', id), call('ZSCORE', P .. 'd', id)
      local state = held and 'a' or due and 'd' or 'w'
      row = { state, blob, due or '', held or '', call('HGET', P .. 'm', id) or '',
        call('HGET', P .. 'g', id) or '', call('HGET', P .. 'e', id) or '' }
    end
  end
  answer[k] = row
end
return answer
