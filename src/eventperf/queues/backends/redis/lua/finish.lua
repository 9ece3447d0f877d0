-- ARGV: digest of the settings, result ttl ms, ttl without a result ms;
--       then how many outcomes, each: id US token US kind US delay ms US count US run us; result (done) or error;
--       details of the run (JSON) or nothing;
--       then jobs that enter with an outcome: its number, how many arguments, a group as of pushes.lua.
--       Answers '?' when the settings are not known (any more).
local ttl, short = tonumber(ARGV[2]), tonumber(ARGV[3])
local ids, i, first, many = {}, 5, 5, tonumber(ARGV[4])
i = first
for k = 1, many do ids[k] = string.match(ARGV[i], '^[^\31]*'); i = i + 3 end
local blobs, queues = call('HMGET', P .. 'j', unpack(ids)), {}
for k = 1, many do queues[k] = blobs[k] and parse(blobs[k]) or '' end
if not knows(ARGV[1], queues) then return '?' end
local held, stamp, match = call('HMGET', P .. 'a', unpack(ids)), string.format('%d', now), string.match
local answer, over, seen, since, by = {}, {}, {}, {}, {}
for k, id in ipairs(ids) do
  local token, started, whose = match(held[k] or '', '^(%d+)\31(%d+)\31(.*)$')
  answer[k] = 0
  if token and blobs[k] and token == match(ARGV[first + 3 * (k - 1)], '^[^\31]*\31(%d+)') and not seen[id] then
    answer[k], since[k], by[k], seen[id] = 1, started, whose, true
    over[#over + 1] = id
  end
end
if #over == 0 then return answer end
-- The first write, one that takes no memory: see need_none() in common.lua.
call('ZREM', P .. 'l', unpack(over))
call('HDEL', P .. 'a', unpack(over))
-- Retried, cancelled and capped jobs and such that others wait for: most often there are none.
local is_plain = call('EXISTS', P .. 'm', P .. 'z', P .. 'b', P .. 'N') == 0
local changed = is_plain and none or call('HMGET', P .. 'm', unpack(ids))
local asked = not is_plain and call('EXISTS', P .. 'z') == 1
if is_plain then
  capped = false
  if not ARGV[first + 3 * many] then linked = false end -- else jobs come in that may wait
end
local gone, finished, runs, run_us = {}, {}, 0, 0
local active, completed = {}, {}
for k, id in ipairs(ids) do
  local at = first + 3 * (k - 1)
  local kind, wait, count, us = match(ARGV[at], '\31%d+\31(%a+)\31(%d+)\31(%d+)\31(%d+)$')
  local text = ARGV[at + 1]
  local started, whose = since[k], by[k]
  if answer[k] == 1 then
    local q, type_, level, extras = parse(blobs[k])
    local attempts, crashes, flags = mutable(changed[k])
    active[q] = (active[q] or 0) + 1
    let_go(id)
    local cancel = asked and call('HEXISTS', P .. 'z', id) == 1
    if cancel then call('HDEL', P .. 'z', id) end
    local run = nil
    if kind ~= 'release' then
      runs = runs + 1
      run_us = run_us + tonumber(us)
      local how = kind == 'done' and 'd' or kind == 'dead' and 'f' or (cancel or kind == 'cancelled') and 'c' or 'r'
      count_run(q, type_, how, us, attempts + crashes == 0 and waited(blobs[k], extras, started))
      run = run_of(attempts + 1, started, us, how, whose, ARGV[at + 2])
      if how ~= 'd' then flags = remember(id, flags, run) end
    end
    if kind == 'done' then
      run = with_run(runs_of(id, flags), run)
      -- as of final() in common.lua, without a table: this is the line that runs most
      local record = 'd\31' .. stamp .. US .. (attempts + 1) .. US .. crashes .. US .. started .. US .. #run .. US ..
        (text ~= '' and #text or -1) .. US .. id .. US .. run .. text .. blobs[k]
      if extras ~= '' then free_unique(id, type_, extras, 'r') end
      if changed[k] then scrub(id, flags) end
      gone[#gone + 1] = id
      local life = text ~= '' and ttl or short
      if life > 0 then call('SET', P .. 'r:' .. id, record, 'PX', life) end
      if extras ~= '' then untag(id, extras, life) end
      local list = finished[q]
      if not list then list = {}; finished[q] = list end
      list[#list + 1] = record
      completed[q] = (completed[q] or 0) + 1
      ended(id, 'd')
    elseif kind == 'cancelled' or (cancel and kind ~= 'dead') then
      cancelled(id, q, type_, extras, attempts, crashes, flags, started, text, short, blobs[k])
    elseif kind == 'dead' then
      bury(id, q, type_, extras, attempts + 1, crashes, flags, started, text, kept_dead(q), blobs[k])
    elseif fault(blobs[k]) then delay(id, q, now) -- damaged since it was claimed: claim.lua buries it
    elseif kind == 'release' then
      ready(id, q, level, '', true)
    else
      wait = tonumber(wait)
      set_mutable(id, attempts + tonumber(count), crashes, flags)
      call('HSET', P .. 'e', id, text)
      inc(q, 'retried')
      if wait > 0 then
        delay(id, q, exact + wait)
        woken[q] = (woken[q] or 0) + 1
      else
        ready(id, q, level, extra(extras, 'k') or '')
      end
    end
  end
end
if #gone > 0 then call('HDEL', P .. 'j', unpack(gone)) end
for q, list in pairs(finished) do
  local known = queue_of(q)
  local keep = known and known.done or 0
  if keep > 0 then
    local from = math.max(1, #list - keep + 1)
    if call('LPUSH', P .. 'D:' .. q, unpack(list, from)) > keep then call('LTRIM', P .. 'D:' .. q, 0, keep - 1) end
  end
  inc(q, 'completed', completed[q])
  rate(q, 's', completed[q])
end
for q, n in pairs(active) do inc(q, 'active', -n) end
if runs > 0 then counts['#runs'], counts['#run_us'] = runs, run_us end
write_minutes()
while ARGV[i] do
  local last = i + 1 + tonumber(ARGV[i + 1])
  if answer[tonumber(ARGV[i])] == 1 then push_groups(i + 2, last) end
  i = last + 1
end
local sums = flush()
if (sums['#runs'] or 0) > 10000 then -- their mean forgets
  call('HSET', P .. 'n', '#runs', 5000, '#run_us',
    string.format('%.0f', (sums['#run_us'] or tonumber(call('HGET', P .. 'n', '#run_us')) or 0) * 5000 / sums['#runs']))
end
return answer
