-- Part of the scripts that show jobs: state, blob or record, due, held, mutable, progress, error, runs.
local function look(id, blob)
  local record = call('GET', P .. 'r:' .. id)
  if record then return { 'r', record } end
  blob = blob or call('HGET', P .. 'j', id)
  if not blob then return false end
  local dead = call('HGET', P .. 'X', id)
  if dead then return { 'r', dead .. blob } end
  local held, due = call('HGET', P .. 'a', id), call('ZSCORE', P .. 'd', id)
  local state, changed = held and 'a' or due and 'd' or 'w', call('HGET', P .. 'm', id) or ''
  local _, _, flags = mutable(changed ~= '' and changed or nil)
  return { state, blob, due or '', held or '', changed, call('HGET', P .. 'g', id) or '',
    call('HGET', P .. 'e', id) or '', runs_of(id, flags) }
end
