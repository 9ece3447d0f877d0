-- ARGV: digest of the settings, worker, lease ms, total, order, aging, max crashes, grace ms, cancelled ttl ms,
--       room in each queue (nothing: as in the settings), for how many ms yet no lease is taken back,
--       how many queues differ, each: name, room; then the worker's types.
--       Answers '?' when the settings are not known (any more).
local every, waiting_in, seen = call('HGETALL', P .. 'c'), {}, {}
for k = 1, #every, 2 do
  ready_in[every[k]] = tonumber(every[k + 1])
  local q = string.match(every[k], '^(.*)|%d+$')
  if q and not seen[q] then seen[q] = true; waiting_in[#waiting_in + 1] = q end
end
if not knows(ARGV[1], waiting_in) then return '?' end
need_memory()
local worker, lease, total, order = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local aging, max_crashes, grace = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local ttl, usual, spare = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local i, room, types = 13 + 2 * tonumber(ARGV[12]), {}, {}
for k = 13, i - 1, 2 do room[ARGV[k]] = tonumber(ARGV[k + 1]) end
while ARGV[i] do types[ARGV[i]] = true; i = i + 1 end
local leases, stalled, expired = {}, {}, {}
local next_at = nil
local function look_at(time)
  if time and (not next_at or time < next_at) then next_at = time end
end

-- How many jobs may start under a limit now.
local gates = {}
-- Parked and held-back jobs, paused queues, retried jobs, classes passed over: most often there are none.
local is_plain = call('EXISTS', P .. 'P', P .. 'G', P .. 'p', P .. 'm', P .. 's') == 0
local function gate_of(rule, bucket)
  local gate = gates[bucket]
  if gate then return gate end
  gate = { rule = rule, free = math.huge, used = 0, starts = math.huge, head = now }
  gates[bucket] = gate
  if rule.cap >= 0 then gate.free = rule.cap - tonumber(call('HGET', P .. 'A', bucket) or 0) end
  if rule.rate >= 0 then
    local key = P .. 'V:' .. bucket
    local head = tonumber(call('LINDEX', key, 0) or now)
    while head <= now - rule.per do
      call('LPOP', key)
      head = tonumber(call('LINDEX', key, 0) or now)
    end
    gate.starts, gate.head = rule.rate - call('LLEN', key), head
    gate.free = math.min(gate.free, gate.starts)
  end
  return gate
end

-- When to look again at a gate that lets none through; for caps a second is a safety net: their end is told.
local function again_at(gate)
  if gate.starts <= gate.used then return gate.head + gate.rule.per end
  return now + 1000
end

-- The gates a job must pass; a second result is the bucket that holds it back.
local function gates_for(q, type_, key)
  local found = {}
  for _, rule in ipairs(rules_for(q, type_, key ~= '')) do
    local bucket = rule.q .. US .. rule.t .. US .. (rule.key and key or '')
    if gate_of(rule, bucket).free <= 0 then return nil, bucket end
    found[#found + 1] = bucket
  end
  return found
end

-- The queue whose dead letter takes a damaged record: the one it names, if there is such a one.
local function home(q)
  if call('HEXISTS', P .. 'n', q .. ':enqueued') == 1 or queue_of(q) then return q end
  return call('HGET', stored, '1st')
end

-- Bury a record that cannot be run, its bytes as they are.
local function refuse(id, q, blob, why)
  local _, type_, _, extras = parse(blob)
  local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
  bury(id, q, type_, extras, attempts, crashes, flags, 0, 'unreadable record: ' .. why, kept_dead(q), blob)
  expired[#expired + 1] = id; expired[#expired + 1] = type_; expired[#expired + 1] = q
  expired[#expired + 1] = 'unreadable record: ' .. why
end

-- 1. what fell due
local first_due, first_end = tonumber(call('ZRANGE', P .. 'd', 0, 0, 'WITHSCORES')[2]),
  tonumber(call('ZRANGE', P .. 'l', 0, 0, 'WITHSCORES')[2])
local is_overdue = first_end and first_end <= now and spare <= 0
local due = first_due and first_due <= exact
  and call('ZRANGEBYSCORE', P .. 'd', '-inf', string.format('%.3f', exact), 'LIMIT', 0, 1000) or none
if #due > 0 then
  call('ZREM', P .. 'd', unpack(due))
  local blobs = call('HMGET', P .. 'j', unpack(due))
  for k, id in ipairs(due) do
    if blobs[k] then
      local q, _, level, extras = parse(blobs[k])
      local why = fault(blobs[k]) or home(q) ~= q and 'it names a queue that nobody put a job into' or nil
      if why then q = home(q) end
      inc(q, 'delayed', -1)
      if why then refuse(id, q, blobs[k], why) else ready(id, q, level, extra(extras, 'k') or '') end
    end
  end
end

-- Whether the worker of a lease has renewed others since this one was last renewed: it lives, and does not hold it.
local function lives_without(held, ends)
  local card = held and call('HGET', P .. 'wk', (string.match(held, '\31%d+\31(.*)$')))
  local heard, its = string.match(card or '', '^(%d+)\31.*"l":(%d+)')
  return its and tonumber(heard) - 3 * its > ends - its + 1
end

-- 2. leases that ran out, but for those of the worker that asks: it lives, and was only kept from renewing them
local gone, ends_at, mine = {}, {}, {}
local overdue = not is_overdue and none
  or call('ZRANGEBYSCORE', P .. 'l', '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1000)
for k = 1, #overdue, 2 do
  local held, ends = call('HGET', P .. 'a', overdue[k]), tonumber(overdue[k + 1])
  if held and string.match(held, '\31%d+\31(.*)$') == worker and not lives_without(held, ends) then
    mine[#mine + 1] = now + lease
    mine[#mine + 1] = overdue[k]
  else
    gone[#gone + 1] = overdue[k]
    ends_at[#ends_at + 1] = ends
  end
end
in_chunks('ZADD', P .. 'l', mine, 2000)
if #gone > 0 then
  call('ZREM', P .. 'l', unpack(gone))
  local held, blobs = call('HMGET', P .. 'a', unpack(gone)), call('HMGET', P .. 'j', unpack(gone))
  call('HDEL', P .. 'a', unpack(gone))
  for k, id in ipairs(gone) do
    if blobs[k] then
      local q, type_, level, extras = parse(blobs[k])
      local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
      local started, whose = string.match(held[k] or '', '\31(%d+)\31(.*)$')
      local lapsed = lives_without(held[k], ends_at[k])
      if not lapsed then
        flags = remember(id, flags, run_of(attempts + 1, started or 0,
          started and string.format('%d', (now - started) * 1000) or 0, 'x', whose or '', ''))
        crashes = crashes + 1
        count_run(q, type_, 'k')
      end
      let_go(id)
      local why = fault(blobs[k])
      if why then q = home(q) end
      local dead = why or not lapsed and crashes >= max_crashes
      inc(q, 'active', -1)
      inc(q, lapsed and 'lapsed' or 'stalled')
      if call('HEXISTS', P .. 'z', id) == 1 then
        cancelled(id, q, type_, extras, attempts, crashes, flags, started, 'cancelled', ttl, blobs[k])
      elseif dead then
        bury(id, q, type_, extras, attempts, crashes, flags, started,
          why and 'unreadable record: ' .. why or 'its worker died ' .. crashes .. ' times while running it',
          kept_dead(q), blobs[k])
      else
        set_mutable(id, attempts, crashes, flags)
        ready(id, q, level, '', true)
      end
      if not lapsed then
        stalled[#stalled + 1] = id; stalled[#stalled + 1] = type_; stalled[#stalled + 1] = q
        stalled[#stalled + 1] = crashes; stalled[#stalled + 1] = dead and 1 or 0
      end
    end
  end
end

-- 3. jobs parked because their workers did not know the type: of the types known here, and of those that nobody has
-- known for the grace time. Releases before this one did not keep when.
local parked = {}
local kinds = is_plain and 0 or call('HLEN', P .. 'P')
if kinds > 0 then
  if call('ZCARD', P .. 'PT') ~= kinds then
    call('DEL', P .. 'PT')
    for _, type_ in ipairs(call('HKEYS', P .. 'P')) do call('ZADD', P .. 'PT', 0, type_) end
  end
  local names = {}
  for type_ in pairs(types) do names[#names + 1] = type_ end
  for type_ in pairs(read(P .. 'P', names)) do parked[#parked + 1] = type_ end
  for _, type_ in ipairs(call('ZRANGEBYSCORE', P .. 'PT', '-inf', now - grace, 'LIMIT', 0, 100)) do
    if not types[type_] then parked[#parked + 1] = type_ end
  end
end
for _, type_ in ipairs(parked) do
  local known = types[type_]
  local until_ = known and 0 or tonumber(call('HGET', P .. 'T', type_) or 0)
  local late = not known and now >= until_ + grace
  if not known and not late then call('ZADD', P .. 'PT', until_, type_) end
  local n = known and total or late and 1000 or 0
  if n > 0 then
    local jobs = call('ZPOPMIN', P .. 'P:' .. type_, n)
    for k = 1, #jobs, 2 do
      local id = jobs[k]
      local blob = call('HGET', P .. 'j', id)
      if blob then
        local q, _, level, extras = parse(blob)
        local why = fault(blob)
        if why then
          q = home(q)
          inc(q, 'waiting', -1)
          refuse(id, q, blob, why)
        elseif known then
          local lane = lane_of(q .. '|' .. level)
          lane.add[#lane.add + 1] = jobs[k + 1]; lane.add[#lane.add + 1] = id
          lane.n = lane.n + 1
        else
          inc(q, 'waiting', -1)
          local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
          bury(id, q, type_, extras, attempts, crashes, flags, 0,
            "no live worker knows the job type '" .. type_ .. "'", kept_dead(q), blob)
          expired[#expired + 1] = id; expired[#expired + 1] = type_; expired[#expired + 1] = q
          expired[#expired + 1] = 'unknown type'
        end
      end
    end
    if call('EXISTS', P .. 'P:' .. type_) == 0 then
      call('HDEL', P .. 'P', type_)
      call('ZREM', P .. 'PT', type_)
    end
  end
end

-- 3b. jobs that a limit held back, as many as it lets through by now
local looked_at, scopes = is_plain and none or call('ZRANGEBYSCORE', P .. 'G', '-inf', now, 'LIMIT', 0, 100), {}
for k, bucket in ipairs(looked_at) do
  local bq, bt, bk = string.match(bucket, '^([^\31]*)\31([^\31]*)\31(.*)$')
  scopes[k] = scope_of(bq, bt, bk ~= '')
end
learn(none, scopes)
for at, bucket in ipairs(looked_at) do
  local free, again, rule = 1000, now + 1000, of_scope[scopes[at]]
  if rule then
    local gate = gate_of(rule, bucket)
    free = math.min(gate.free, 1000)
    if free <= 0 then again = again_at(gate)
    elseif rule.rate >= 0 then again = now + math.max(1, math.min(1000, math.floor(rule.per / rule.rate))) end
  end
  local jobs = free > 0 and call('ZPOPMIN', P .. 'B:' .. bucket, free) or {}
  for k = 1, #jobs, 2 do
    local id = jobs[k]
    local blob = call('HGET', P .. 'j', id)
    call('HDEL', P .. 'Y', id)
    if blob then
      local q, _, level = parse(blob)
      local why = fault(blob)
      if why then
        q = home(q)
        inc(q, 'waiting', -1)
        refuse(id, q, blob, why)
      else
        local lane = lane_of(q .. '|' .. level)
        lane.add[#lane.add + 1] = jobs[k + 1]; lane.add[#lane.add + 1] = id
        lane.n = lane.n + 1
      end
    end
  end
  if call('EXISTS', P .. 'B:' .. bucket) == 1 then call('ZADD', P .. 'G', again, bucket)
  else call('ZREM', P .. 'G', bucket) end
end
flush()
counts, lanes, woken = {}, {}, {}

-- 4. choose classes, then take that many from each
local classes = {}
waiting_in, seen = {}, {}
for name, n in pairs(ready_in) do
  local q, level = string.match(name, '^(.*)|(%d+)$')
  if q and n > 0 then
    classes[#classes + 1] = { name = name, q = q, level = tonumber(level), n = n, want = 0 }
    if not seen[q] then seen[q] = true; waiting_in[#waiting_in + 1] = q end
  end
end
local whole = {}
for k, q in ipairs(limited and waiting_in or none) do whole[k] = scope_of(q, '') end
learn(waiting_in, whole)
local paused = is_plain and none or read(P .. 'p', waiting_in)
for _, q in ipairs(waiting_in) do
  local known = of_queue[q]
  if not known or known.room < 0 then room[q] = 0
  else room[q] = room[q] or usual or known.room end
  local rule = room[q] > 0 and of_scope[scope_of(q, '')]
  if rule then room[q] = math.max(0, math.min(room[q], gate_of(rule, q .. US .. US).free)) end
end
local open, held_back = {}, 0
for _, lane in ipairs(classes) do
  if room[lane.q] > 0 and not paused[lane.q] then
    lane.rank, lane.weight = of_queue[lane.q].rank, of_queue[lane.q].weight
    open[#open + 1] = lane
  end
end
local considered, credit = open, {}
local names = {}
for k, lane in ipairs(open) do names[k] = lane.name end
local passed = is_plain and none or read(P .. 's', names)
for _, lane in ipairs(open) do
  lane.skipped = tonumber(passed[lane.name] or 0)
  lane.before = lane.skipped
end
if #open > 1 and order == 'weighted' then
  local kept = read(P .. 'w', waiting_in)
  for _, lane in ipairs(open) do credit[lane.q] = tonumber(kept[lane.q] or 0) end
end

local function higher(a, b)
  if a.rank ~= b.rank then return a.rank > b.rank end
  if a.q ~= b.q then return a.q > b.q end
  return a.level > b.level
end

local function choose()
  if #open == 1 then return open[1] end
  local best
  if aging >= 0 then
    for _, lane in ipairs(open) do
      if lane.skipped >= aging and (not best or lane.skipped > best.skipped
        or (lane.skipped == best.skipped and higher(best, lane))) then best = lane end
    end
  end
  if not best and order == 'weighted' then
    local sum, seen, q = 0, {}, nil
    for _, lane in ipairs(open) do
      if not seen[lane.q] then
        seen[lane.q] = true
        credit[lane.q] = credit[lane.q] + lane.weight
        sum = sum + lane.weight
      end
    end
    for name in pairs(seen) do
      if not q or credit[name] > credit[q] or (credit[name] == credit[q] and name > q) then q = name end
    end
    credit[q] = credit[q] - sum
    for _, lane in ipairs(open) do
      if lane.q == q and (not best or lane.level > best.level) then best = lane end
    end
  elseif not best then
    for _, lane in ipairs(open) do if not best or higher(lane, best) then best = lane end end
  end
  for _, lane in ipairs(open) do lane.skipped = lane.skipped + 1 end
  best.skipped = 0
  return best
end

local spent, has_run = {}, not is_plain or #gone > 0 -- whether there may be jobs that ran before
local function take(wanted)
  local picks, used = {}, {}
  open = {} -- anew: a job that was set aside gave its room back to a class that had none left
  for _, one in ipairs(considered) do
    if one.n > 0 and room[one.q] > 0 then open[#open + 1] = one end
  end
  while #open > 0 and #picks < wanted do
    local lane
    if #open == 1 then
      lane = open[1]
      local n = math.min(wanted - #picks, lane.n, room[lane.q])
      for _ = 1, n do picks[#picks + 1] = lane end
      lane.want, lane.n, room[lane.q] = lane.want + n, lane.n - n, room[lane.q] - n
      lane.skipped = 0
    else
      lane = choose()
      picks[#picks + 1] = lane
      lane.want, lane.n, room[lane.q] = lane.want + 1, lane.n - 1, room[lane.q] - 1
    end
    used[lane.name] = lane
    if lane.n == 0 or room[lane.q] == 0 then
      local rest = {}
      for _, one in ipairs(open) do
        if one.n > 0 and room[one.q] > 0 then rest[#rest + 1] = one end
      end
      open = rest
    end
  end
  if #picks == 0 then return 0 end
  local base = call('INCRBY', P .. 't', #picks) - #picks
  for name, lane in pairs(used) do
    lane.jobs, lane.at = call('ZPOPMIN', P .. 'L:' .. name, lane.want), 1
    ready_in[name] = ready_in[name] - lane.want
    if ready_in[name] == 0 then
      call('HDEL', P .. 'c', name)
      spent[#spent + 1] = P .. 'H:' .. name
    else call('HINCRBY', P .. 'c', name, -lane.want) end
    local v = lane.jobs[#lane.jobs]
    if tonumber(v) > tonumber(call('HGET', P .. 'v', name) or 0) then call('HSET', P .. 'v', name, v) end
    lane.want = 0
  end
  local ids, tags = {}, {}
  for k, lane in ipairs(picks) do
    ids[k], tags[k] = lane.jobs[lane.at], lane.jobs[lane.at + 1]
    lane.at = lane.at + 2
  end
  local blobs, changed = call('HMGET', P .. 'j', unpack(ids)), has_run and call('HMGET', P .. 'm', unpack(ids)) or none
  local ends, holds, until_ = {}, {}, string.format('%d', now + lease)
  local held_by, started, running = US .. string.format('%d', now) .. US .. worker, {}, {}
  for k, id in ipairs(ids) do
    local lane, q, type_, level, extras, why = picks[k], nil, nil, nil, '', nil
    if blobs[k] then
      q, type_, level, extras = parse(blobs[k])
      why = fault(blobs[k]) or q ~= lane.q and 'it names another queue than it waited in' or nil
    end
    local attempts, crashes, flags = mutable(changed[k])
    if why or not blobs[k] then q = lane.q end
    started[q] = (started[q] or 0) + 1
    local life = extra(extras, 'd')
    if blobs[k] and not why then forget_turn(extras, lane.name, tonumber(tags[k])) end
    if why or not blobs[k] then
      if why then refuse(id, q, blobs[k], why) end -- else nothing is left of it but its place
      room[q] = room[q] + 1
    elseif not types[type_] then
      inc(q, 'waiting', 1)
      if call('HINCRBY', P .. 'P', type_, 1) == 1 then
        local known_until = math.max(now, tonumber(call('HGET', P .. 'T', type_) or 0))
        call('HSET', P .. 'T', type_, known_until)
        call('ZADD', P .. 'PT', known_until, type_)
        if partition then tell() end
      end
      call('ZADD', P .. 'P:' .. type_, tags[k], id)
      if not partition and call('LLEN', P .. 'K:' .. type_) < 8 then
        call('RPUSH', P .. 'K:' .. type_, '1')
        call('PEXPIRE', P .. 'K:' .. type_, 60000)
      end
      room[q] = room[q] + 1
      held_back = held_back + 1
    elseif life and not string.find(flags, 'n', 1, true)
      and now >= tonumber(string.match(blobs[k], '^%d+')) + life * 1000 then
      bury(id, q, type_, extras, attempts, crashes, flags, 0,
        'deadline passed before it could start', kept_dead(q), blobs[k])
      expired[#expired + 1] = id; expired[#expired + 1] = type_; expired[#expired + 1] = q
      expired[#expired + 1] = 'deadline'
      room[q] = room[q] + 1
    else
      local through, bucket = nil, nil
      if limited then through, bucket = gates_for(q, type_, extra(extras, 'k') or '') end
      if bucket then
        inc(q, 'waiting', 1)
        call('ZADD', P .. 'B:' .. bucket, tags[k], id)
        call('HSET', P .. 'Y', id, bucket)
        call('ZADD', P .. 'G', 'NX', again_at(gates[bucket]), bucket)
        room[q] = room[q] + 1
        held_back = held_back + 1
      else
      local under = {}
      for _, name in ipairs(through or {}) do
        local gate = gates[name]
        gate.free, gate.used = gate.free - 1, gate.used + 1
        if gate.rule.cap >= 0 then under[#under + 1] = name end
      end
      if #under > 0 then call('HSET', P .. 'b', id, table.concat(under, '\30')) end
      running[q] = (running[q] or 0) + 1
      if extras ~= '' then free_unique(id, type_, extras, 'w') end
      ends[#ends + 1] = until_; ends[#ends + 1] = id
      holds[#holds + 1] = id
      holds[#holds + 1] = string.format('%d', base + k) .. held_by
      local n = #leases
      leases[n + 1], leases[n + 2], leases[n + 3] = id, base + k, attempts
      leases[n + 4], leases[n + 5], leases[n + 6] = crashes, flags, blobs[k]
      end
    end
  end
  for q, n in pairs(started) do inc(q, 'waiting', -n) end
  for q, n in pairs(running) do inc(q, 'active', n) end
  if #ends > 0 then
    in_chunks('ZADD', P .. 'l', ends, 2000)
    in_chunks('HSET', P .. 'a', holds, 2000)
  end
  return #picks
end

while #leases / 6 < total do
  if held_back >= 2000 then look_at(now); break end
  if take(total - #leases / 6) == 0 then break end
end
for bucket, gate in pairs(gates) do
  if gate.starts <= gate.used then look_at(again_at(gate)) end
  if gate.used > 0 then
    if gate.rule.cap >= 0 then call('HINCRBY', P .. 'A', bucket, gate.used) end
    if gate.rule.rate >= 0 then
      for _ = 1, gate.used do call('RPUSH', P .. 'V:' .. bucket, string.format('%d', now)) end
      call('PEXPIRE', P .. 'V:' .. bucket, gate.rule.per)
    end
  end
end
local skips, credits = {}, {}
for _, lane in ipairs(considered) do
  if lane.skipped == lane.before then -- as it is written
  elseif lane.skipped == 0 then call('HDEL', P .. 's', lane.name)
  else skips[#skips + 1] = lane.name; skips[#skips + 1] = lane.skipped end
end
for q, value in pairs(credit) do credits[#credits + 1] = q; credits[#credits + 1] = value end
in_chunks('HSET', P .. 's', skips, 2000)
in_chunks('HSET', P .. 'w', credits, 2000)
flush()

-- 5. wake-ups: drop spent ones, pass on what is left over (a partition's were heard by all workers)
local left, is_left = {}, false
for name, n in pairs(ready_in) do
  local q = string.match(name, '^(.*)|')
  local known = q and n and n > 0 and queue_of(q)
  if known and known.room >= 0 then
    left[q] = true
    is_left = is_left or not paused[q]
  end
end
for _, q in ipairs(partition and none or group and waiting_in or served) do
  if not left[q] then spent[#spent + 1] = P .. 'k:' .. q
  elseif not group and #leases > 0 and not paused[q] then ring(P .. 'k:' .. q, 1) end
end
if partition then -- nothing waits at its lists
elseif group and not is_left then spent[#spent + 1] = P .. 'g:' .. group
elseif group and #leases > 0 then ring(P .. 'g:' .. group, 1, 60000) end
for k = 1, #spent, 2000 do call('DEL', unpack(spent, k, math.min(k + 1999, #spent))) end

local function first_of(key) return tonumber(call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')[2]) end
if #due > 0 or delays > 0 then first_due = first_of('d') end
if is_overdue then first_end = first_of('l')
elseif #leases > 0 then first_end = math.min(first_end or now + lease, now + lease) end
look_at(first_due)
look_at(first_end and math.max(first_end, now + spare))
if limited or not is_plain then look_at(first_of('G')) end
if next(counted) then write_minutes() end
return { next_at and math.max(0, (next_at - exact) * 1000) or -1, leases, stalled, expired }
