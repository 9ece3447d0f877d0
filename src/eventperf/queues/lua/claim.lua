-- ARGV: worker, lease ms, total, order, aging, max crashes, grace ms, cancelled ttl ms, queues,
--       then per queue: name, room, rank, weight, keep failed; then the worker's types
local worker, lease, total, order = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local aging, max_crashes, grace = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local ttl = tonumber(ARGV[8])
local room, rank, weight, keep, types = {}, {}, {}, {}, {}
local i, mine = 10, {}
for _ = 1, tonumber(ARGV[9]) do
  local q = ARGV[i]
  mine[#mine + 1] = q
  room[q], rank[q], weight[q] = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  keep[q] = tonumber(ARGV[i + 4])
  i = i + 5
end
while ARGV[i] do types[ARGV[i]] = true; i = i + 1 end
local leases, stalled, expired = {}, {}, {}

-- 1. what fell due
local due = call('ZRANGEBYSCORE', P .. 'd', '-inf', now, 'LIMIT', 0, 1000)
if #due > 0 then
  call('ZREM', P .. 'd', unpack(due))
  local blobs = call('HMGET', P .. 'j', unpack(due))
  for k, id in ipairs(due) do
    if blobs[k] then
      local q, _, level, extras = parse(blobs[k])
      inc(q, 'delayed', -1)
      ready(id, q, level, extra(extras, 'k') or '')
    end
  end
end

-- 2. leases that ran out
local gone = call('ZRANGEBYSCORE', P .. 'l', '-inf', now, 'LIMIT', 0, 1000)
if #gone > 0 then
  call('ZREM', P .. 'l', unpack(gone))
  local held, blobs = call('HMGET', P .. 'a', unpack(gone)), call('HMGET', P .. 'j', unpack(gone))
  call('HDEL', P .. 'a', unpack(gone))
  for k, id in ipairs(gone) do
    if blobs[k] then
      local q, type_, level, extras = parse(blobs[k])
      local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
      local started = held[k] and string.match(held[k], '\31(%d+)\31')
      crashes = crashes + 1
      local dead = crashes >= max_crashes
      inc(q, 'active', -1)
      inc(q, 'stalled')
      if call('HEXISTS', P .. 'z', id) == 1 then
        cancelled(id, q, type_, extras, attempts, crashes, flags, started, 'cancelled', ttl, blobs[k])
      elseif dead then
        bury(id, q, type_, extras, attempts, crashes, flags, started,
          'its worker died ' .. crashes .. ' times while running it', keep[q] or -1, blobs[k])
      else
        set_mutable(id, attempts, crashes, flags)
        ready(id, q, level, '', true)
      end
      stalled[#stalled + 1] = id; stalled[#stalled + 1] = type_; stalled[#stalled + 1] = q
      stalled[#stalled + 1] = crashes; stalled[#stalled + 1] = dead and 1 or 0
    end
  end
end

-- 3. jobs parked because their workers did not know the type
for _, type_ in ipairs(call('HKEYS', P .. 'P')) do
  local known = types[type_]
  local late = not known and now >= tonumber(call('HGET', P .. 'T', type_) or 0) + grace
  local n = known and total or late and 1000 or 0
  if n > 0 then
    local jobs = call('ZPOPMIN', P .. 'P:' .. type_, n)
    for k = 1, #jobs, 2 do
      local id = jobs[k]
      local blob = call('HGET', P .. 'j', id)
      if blob then
        local q, _, level, extras = parse(blob)
        if known then
          local lane = lane_of(q .. '|' .. level)
          lane.add[#lane.add + 1] = jobs[k + 1]; lane.add[#lane.add + 1] = id
          lane.n = lane.n + 1
        else
          inc(q, 'waiting', -1)
          local attempts, crashes, flags = mutable(call('HGET', P .. 'm', id))
          bury(id, q, type_, extras, attempts, crashes, flags, 0,
            "no live worker knows the job type '" .. type_ .. "'", keep[q] or -1, blob)
          expired[#expired + 1] = id; expired[#expired + 1] = type_; expired[#expired + 1] = q
          expired[#expired + 1] = 'unknown type'
        end
      end
    end
    if call('EXISTS', P .. 'P:' .. type_) == 0 then call('HDEL', P .. 'P', type_) end
  end
end
flush()
counts, lanes, woken = {}, {}, {}

-- 4. choose classes, then take that many from each
local paused = {}
for _, q in ipairs(call('HKEYS', P .. 'p')) do paused[q] = true end
local open, size = {}, {}
local all = call('HGETALL', P .. 'c')
for k = 1, #all, 2 do
  local q, level = string.match(all[k], '^(.*)|(%d+)$')
  local n = tonumber(all[k + 1])
  if n > 0 and room[q] and room[q] > 0 and not paused[q] then
    open[#open + 1] = { name = all[k], q = q, level = tonumber(level), n = n, want = 0 }
  end
end
local considered, credit = open, {}
for _, lane in ipairs(open) do
  lane.skipped = tonumber(call('HGET', P .. 's', lane.name) or 0)
  lane.before = lane.skipped
end
if #open > 1 then
  if order == 'weighted' then
    for _, q in ipairs(mine) do credit[q] = tonumber(call('HGET', P .. 'w', q) or 0) end
  end
end

local function higher(a, b)
  if rank[a.q] ~= rank[b.q] then return rank[a.q] > rank[b.q] end
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
        credit[lane.q] = credit[lane.q] + weight[lane.q]
        sum = sum + weight[lane.q]
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

local token = nil
local function take(wanted)
  local picks, used = {}, {}
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
  for name, lane in pairs(used) do
    lane.jobs, lane.at = call('ZPOPMIN', P .. 'L:' .. name, lane.want), 1
    if call('HINCRBY', P .. 'c', name, -lane.want) == 0 then call('HDEL', P .. 'c', name) end
    local v = lane.jobs[#lane.jobs]
    if tonumber(v) > tonumber(call('HGET', P .. 'v', name) or 0) then call('HSET', P .. 'v', name, v) end
    lane.want = 0
  end
  local ids, tags = {}, {}
  for k, lane in ipairs(picks) do
    ids[k], tags[k] = lane.jobs[lane.at], lane.jobs[lane.at + 1]
    lane.at = lane.at + 2
  end
  local blobs, changed = call('HMGET', P .. 'j', unpack(ids)), call('HMGET', P .. 'm', unpack(ids))
  local base = call('INCRBY', P .. 't', #ids) - #ids
  local ends, holds, until_ = {}, {}, now + lease
  for k, id in ipairs(ids) do
    local q, type_, level, extras = parse(blobs[k])
    local attempts, crashes, flags = mutable(changed[k])
    inc(q, 'waiting', -1)
    local life = extras ~= '' and extra(extras, 'd')
    if not types[type_] then
      inc(q, 'waiting', 1)
      if call('HINCRBY', P .. 'P', type_, 1) == 1 then
        call('HSET', P .. 'T', type_, math.max(now, tonumber(call('HGET', P .. 'T', type_) or 0)))
      end
      call('ZADD', P .. 'P:' .. type_, tags[k], id)
      if call('LLEN', P .. 'K:' .. type_) < 8 then
        call('RPUSH', P .. 'K:' .. type_, '1')
        call('PEXPIRE', P .. 'K:' .. type_, 60000)
      end
      room[q] = room[q] + 1
    elseif life and not string.find(flags, 'n', 1, true)
      and now >= tonumber(string.match(blobs[k], '^%d+')) + life * 1000 then
      bury(id, q, type_, extras, attempts, crashes, flags, 0,
        'deadline passed before it could start', keep[q] or -1, blobs[k])
      expired[#expired + 1] = id; expired[#expired + 1] = type_; expired[#expired + 1] = q
      expired[#expired + 1] = 'deadline'
      room[q] = room[q] + 1
    else
      inc(q, 'active')
      if extras ~= '' then free_unique(id, type_, extras, 'w') end
      ends[#ends + 1] = until_; ends[#ends + 1] = id
      holds[#holds + 1] = id
      holds[#holds + 1] = string.format('%d', base + k) .. US .. now .. US .. worker
      local n = #leases
      leases[n + 1], leases[n + 2], leases[n + 3] = id, base + k, attempts
      leases[n + 4], leases[n + 5], leases[n + 6] = crashes, flags, blobs[k]
    end
  end
  if #ends > 0 then
    in_chunks('ZADD', P .. 'l', ends, 2000)
    in_chunks('HSET', P .. 'a', holds, 2000)
  end
  return #picks
end

while #leases / 6 < total do
  if take(total - #leases / 6) == 0 then break end
end
for _, lane in ipairs(considered) do
  if lane.skipped ~= lane.before then call('HSET', P .. 's', lane.name, lane.skipped) end
end
for q, value in pairs(credit) do call('HSET', P .. 'w', q, value) end
flush()

-- 5. wake-ups: drop spent ones, pass on what is left over
local ready_in = {}
local left = call('HGETALL', P .. 'c')
for k = 1, #left, 2 do
  local q = string.match(left[k], '^(.*)|')
  if tonumber(left[k + 1]) > 0 then ready_in[q] = true end
end
local spent = {}
for _, q in ipairs(mine) do
  if not ready_in[q] then spent[#spent + 1] = P .. 'k:' .. q
  elseif #leases > 0 and not paused[q] then wake(q, 1) end
end
if #spent > 0 then call('DEL', unpack(spent)) end

local next_at = nil
for _, key in ipairs({ 'd', 'l' }) do
  local first = call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')[2]
  if first and (not next_at or tonumber(first) < next_at) then next_at = tonumber(first) end
end
return { next_at and math.max(0, next_at - now) or -1, leases, stalled, expired }
