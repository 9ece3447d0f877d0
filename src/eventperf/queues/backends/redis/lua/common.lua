-- Shared by all scripts. Every key begins with KEYS[1], which holds the hash tag: one slot, one node.
--   j   hash   id -> created US queue US type US priority US extras(json) US payload   (US = char 31)
--   m   hash   id -> attempts:crashes:flags   only where one of them is not zero; s steps, g progress, n no deadline,
--              h runs
--   a   hash   id -> token US started US worker          l  zset  id by end of lease
--   d   zset   id by due time                            L:<queue>|<level>  zset  id by virtual start tag
--   c   hash   <queue>|<level> -> ready jobs             v, s  hash  the same -> virtual time, times skipped
--   F:<queue>|<level>  hash  fairness key -> last tag    w  hash  queue -> round-robin credit
--   H:<queue>|<level>  zset  tags of cancelled jobs, each US its key, until a class is empty or beyond them
--   P   hash   type -> parked jobs                       P:<type>  zset  id by tag
--   PT  zset   parked type by the time until which it was known when last looked at
--   x:<queue>  zset  dead ids                            X  hash  id -> dead record
--   r:<id>     finished record, with a time to live      D:<queue>  list  of finished records
--   n   hash   counters                                  R:<bucket>  hash  arrivals and services of 10 s
--   u:<type>|<key>  unique key -> id                     k:<queue>, K:<type>, W:<worker>  wake-up lists
--   kq  hash   queue -> groups of workers that wait for it  kg  hash  group -> until   g:<group>  wake-up list
--   T   hash   type -> known until                       wk  hash  worker -> until and card
--   A   hash   bucket -> running jobs under its cap      b   hash  id -> buckets it runs under (split by char 30)
--   V:<bucket>  list  start times in the rate's window   G   zset  bucket with held-back jobs by time of next look
--   B:<bucket>  zset  ids held back, by tag              Y   hash  id -> bucket that holds it back
--   N   hash   id -> how many jobs wait for it           N:<id>  list  these, each US "success", "ended" or "failure"
--   f:<id>  list  of these, those that no longer wait, for as long as the job is kept
--   pd  hash   waiting job -> how many it still waits for
--   cr  hash   schedule -> last slot fired
--   h   hash   id -> runs of a job that has not ended well, each RS number US started US us US how US worker US details
--   C:<queue>  list  of cancelled records            t:<tag>  zset  ids by creation     te:<tag>  zset  ended ids by end
--   Mn  hash   queue US type -> its number           Mc  the minute that is open
--   M:<minute>  hash  number and what -> how often   m:<minute>  the same as text, once the minute is over
-- A partition's keys begin with {eventperf:<namespace>|<number>.<suffix>}: and its workers wait at no list: those of all
-- partitions listen to the channels eventperf:<namespace>:wake, where its number is said, and eventperf:<namespace>:to:<worker>.
-- A bucket is queue US type US key, each possibly empty. A job that waits for others is delayed until FAR.
local P = KEYS[1]
local space, partition = string.match(P, '^{eventperf:([^|]*)|(%d+)')
local US = '\31'
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local exact = (clock[1] * 1000000 + clock[2]) / 1000 -- with fractions: what is due is neither early nor rounded

-- Redis refuses a script at its first write or not at all, and a full Redis only a write that takes memory: one that
-- takes none, and everything after it, goes through. Left to chance, leases would end (ZREM) that could not be renewed
-- (HSET). So each script that writes says first how it fares on a full Redis: need_memory(), it is refused before it
-- has done anything, as what makes jobs or hands them out must; need_none(), it goes through, as what keeps or ends
-- jobs that run may: there are only as many of them as slots, and memory comes free by their ends.
local function need_memory() call('ZADD', P .. 'l', 'XX', 0, '') end
local function need_none() call('HDEL', P .. 'wk', '') end

local counts, lanes, woken = {}, {}, {}
local arrived = {} -- of a partition: queue -> jobs that woke for no other reason than that they are ready
local ready_in = {} -- class -> its ready jobs, of those that this script has changed or read
local FAR = 9000000000000000
local ended, settle -- told below: what follows from the end of a job

local function inc(queue, field, by)
  local name = queue .. ':' .. field
  counts[name] = (counts[name] or 0) + (by or 1)
end

-- The record's queue, type, level and extras (text). Of a damaged one, what can be made out: whoever can write to
-- this Redis may have left it, and no script may end over it. claim.lua buries it.
local function parse(blob)
  local queue, type_, level, extras = string.match(blob, '^%d+\31([^\31]*)\31([^\31]*)\31(%d+)\31([^\31]*)\31')
  if queue then return queue, type_, level, extras end
  queue, type_ = string.match(blob, '^[^\31]*\31([^\31]*)\31([^\31]*)')
  return queue or '', type_ or '', '0', ''
end

local read, none = {}, {}
-- The table that a text of extras holds; an empty one, and why, when it is not what is written there.
local function facts(extras)
  if extras == '' then return none end
  local e = read[extras]
  if not e then
    local good
    good, e = pcall(cjson.decode, extras)
    good = good and type(e) == 'table' and type(e.d or 0) == 'number' and type(e.w or 0) == 'number'
      and type(e.k or '') == 'string' and type(e.u or '') == 'string' and type(e.f or none) == 'table'
      and type(e.l or none) == 'table'
      and (not e.l or #e.l == 0 or type(e.l[1]) == 'string')
    if not good then e = none end
    read[extras] = e
  end
  return e, e == none and 'its part with extras is not what is written there' or nil
end

-- What keeps a record from being run, or nil.
local function fault(blob)
  local extras = string.match(blob, '^%d+\31[^\31]*\31[^\31]*\31%d+\31([^\31]*)\31')
  if not extras then return 'its head is damaged' end
  return (select(2, facts(extras)))
end

local function mutable(text)
  if not text then return 0, 0, '' end
  local a, c, f = string.match(text, '^(%d+):(%d+):(%a*)$')
  return tonumber(a) or 0, tonumber(c) or 0, f or 'sgnh' -- flags of all kinds: nothing is left behind
end

local function set_mutable(id, attempts, crashes, flags)
  if attempts == 0 and crashes == 0 and flags == '' then call('HDEL', P .. 'm', id)
  else call('HSET', P .. 'm', id, attempts .. ':' .. crashes .. ':' .. flags) end
end

local function lane_of(name)
  local lane = lanes[name]
  if not lane then
    lane = { add = {}, n = 0, last = {}, dirty = {}, v = tonumber(call('HGET', P .. 'v', name) or 0) }
    lanes[name] = lane
  end
  return lane
end

-- Put a job into its class: at the end of its key's turn, or at the head.
local function ready(id, queue, level, key, head)
  local name = queue .. '|' .. level
  local lane = lane_of(name)
  local tag
  if head then
    tag = lane.v
  else
    local last = lane.last[key]
    if not last then last = tonumber(call('HGET', P .. 'F:' .. name, key) or 0) end
    tag = math.max(lane.v, last) + 1
    lane.last[key] = tag
    lane.dirty[key] = true
  end
  local add = lane.add
  add[#add + 1] = string.format('%.17g', tag)
  add[#add + 1] = id
  lane.n = lane.n + 1
  inc(queue, 'waiting')
  woken[queue] = (woken[queue] or 0) + 1
  if partition then arrived[queue] = (arrived[queue] or 0) + 1 end
end

local delays = 0
local function delay(id, queue, due)
  delays = delays + 1
  call('ZADD', P .. 'd', due, id)
  inc(queue, 'delayed')
end

local function in_chunks(command, key, list, step)
  local i = 1
  while i <= #list do
    local to = math.min(i + step - 1, #list)
    call(command, key, unpack(list, i, to))
    i = to + 1
  end
end

-- The fields of a hash as a table, in as few commands as the stack allows.
local function read(key, names)
  local found = {}
  for i = 1, #names, 2000 do
    local to = math.min(i + 1999, #names)
    for k, value in ipairs(call('HMGET', key, unpack(names, i, to))) do
      if value then found[names[i + k - 1]] = value end
    end
  end
  return found
end

-- Let one more wake-up wait at a place, where fewer than `n` do.
local function ring(key, n, life)
  if call('RPUSH', key, '1') > math.min(n, 8) then call('RPOP', key)
  elseif life then call('PEXPIRE', key, life) end
end

local function tell() call('PUBLISH', 'eventperf:' .. space .. ':wake', partition) end

-- Workers of few queues wait at each of these; those of many wait at one place, their group's.
local function wake(queue, n)
  if partition then return tell() end
  ring(P .. 'k:' .. queue, n)
  local groups = call('HGET', P .. 'kq', queue)
  for group in string.gmatch(groups or '', '%x+') do ring(P .. 'g:' .. group, n, 60000) end
end

-- Say of the types ARGV[from] to ARGV[to] that they are known until then, where it is written for less than `least`.
local function know_types(from, to, least, until_)
  local types, put = {}, {}
  for k = from, to do types[#types + 1] = ARGV[k] end
  local known = read(P .. 'T', types)
  for _, type_ in ipairs(types) do
    if (tonumber(known[type_]) or 0) < least then put[#put + 1] = type_; put[#put + 1] = until_ end
  end
  in_chunks('HSET', P .. 'T', put, 2000)
end

local function rate(queue, field, by)
  local key = P .. 'R:' .. math.floor(now / 10000)
  if call('HINCRBY', key, queue .. ':' .. field, by) == by then call('PEXPIRE', key, 90000) end
end

-- Add to several fields of a hash, in two commands at most; returns what they are now.
local function add_up(key, by)
  local names, sums, put = {}, {}, {}
  for name, n in pairs(by) do
    if n ~= 0 then names[#names + 1] = name end
  end
  if #names < 3 then
    for _, name in ipairs(names) do sums[name] = call('HINCRBY', key, name, by[name]) end
    return sums
  end
  local before = read(key, names)
  for _, name in ipairs(names) do
    sums[name] = (tonumber(before[name]) or 0) + by[name]
    put[#put + 1] = name
    put[#put + 1] = string.format('%.0f', sums[name])
  end
  in_chunks('HSET', key, put, 2000)
  return sums
end

-- Write what the helpers above have gathered; returns the counters that have changed.
local function flush()
  settle()
  local is_news = false -- where jobs wait already, their workers know
  for name, lane in pairs(lanes) do
    if lane.n > 0 then
      in_chunks('ZADD', P .. 'L:' .. name, lane.add, 2000)
      ready_in[name] = call('HINCRBY', P .. 'c', name, lane.n)
      is_news = is_news or ready_in[name] == lane.n
    end
    for key in pairs(lane.dirty) do
      call('HSET', P .. 'F:' .. name, key, string.format('%.17g', lane.last[key]))
    end
  end
  local sums = add_up(P .. 'n', counts)
  if partition then
    for queue, n in pairs(woken) do is_news = is_news or n > (arrived[queue] or 0) end
    if is_news then tell() end
    arrived = {}
    return sums
  end
  for queue, n in pairs(woken) do wake(queue, n) end
  return sums
end

local function free_unique(id, type_, extras, mode)
  local e = facts(extras)
  if e.u and (e.m or 'w') == mode then
    local key = P .. 'u:' .. type_ .. '|' .. e.u
    if call('GET', key) == id then call('DEL', key) end
  end
end

-- A job that was cancelled gives its turn back: its key's last is what waits of it last. Behind the class's time
-- the tags of a key follow one another but for those given back before, which are kept until time has passed them.
-- An empty class remembers nothing.
local function give_turn_back(extras, lane, tag, is_empty)
  local turns, holes = P .. 'F:' .. lane, P .. 'H:' .. lane
  if is_empty then call('DEL', turns, holes) return end
  local key = facts(extras).k or ''
  local v, last = tonumber(call('HGET', P .. 'v', lane) or 0), tonumber(call('HGET', turns, key) or 0)
  call('ZREMRANGEBYSCORE', holes, '-inf', string.format('%.17g', v))
  if tag <= v or tag > last then return end
  local function hole(at) return string.format('%.17g', at) .. US .. key end
  if tag < last then call('ZADD', holes, string.format('%.17g', tag), hole(tag)) return end
  repeat tag = tag - 1 until tag <= v or call('ZREM', holes, hole(tag)) == 0
  if tag <= v then call('HDEL', turns, key) else call('HSET', turns, key, string.format('%.17g', tag)) end
end

-- Forget a fairness key's turn with the last of its jobs in a class, so that keys seen once do not stay for ever.
local function forget_turn(extras, lane, tag)
  if tag and string.find(extras, '"k":', 1, true) then
    local key = facts(extras).k
    local last = key and call('HGET', P .. 'F:' .. lane, key)
    if last and tonumber(last) <= tag then call('HDEL', P .. 'F:' .. lane, key) end
  end
end

local function extra(extras, name)
  return facts(extras)[name]
end

-- The runs that are kept of a job, and these with one more: the last ten.
local function runs_of(id, flags)
  return string.find(flags, 'h', 1, true) and call('HGET', P .. 'h', id) or ''
end

local function with_run(runs, run)
  if runs == '' then return run end
  local _, n = string.gsub(runs, '\30', '\30')
  if n >= 10 then runs = string.match(runs, '^\30[^\30]*(.*)$') end
  return runs .. run
end

local function run_of(number, started, us, how, worker, details)
  return '\30' .. number .. US .. started .. US .. us .. US .. how .. US .. worker .. US .. details
end

local function remember(id, flags, run)
  call('HSET', P .. 'h', id, with_run(runs_of(id, flags), run))
  return string.find(flags, 'h', 1, true) and flags or flags .. 'h'
end

local function tags_of(extras)
  local found = {}
  local tags = facts(extras).l
  for _, tag in ipairs(type(tags) == 'table' and tags or {}) do found[#found + 1] = tostring(tag) end
  return found
end

-- Find an ended job by its tags until its record is forgotten, one that is gone no more.
local function untag(id, extras, life)
  if extras == '' or not string.find(extras, '"l":', 1, true) then return end
  for _, tag in ipairs(tags_of(extras)) do
    call('ZREM', P .. 't:' .. tag, id)
    if life > 0 then
      local key = P .. 'te:' .. tag
      call('ZREMRANGEBYSCORE', key, '-inf', now)
      call('ZADD', key, now + life, id)
      if call('PTTL', key) < life then call('PEXPIRE', key, life) end
    end
  end
end

-- state US finished US attempts US crashes US started US error length US result length US id US error runs result blob;
-- the error's length is that of error and runs
local function final(id, state, attempts, crashes, started, err, result, blob)
  return table.concat({ state, now, attempts, crashes, started or 0, #err, result and #result or -1,
    id, err .. (result or '') .. blob }, US)
end

-- Give back what a running job holds of the caps it runs under; called whenever a lease ends.
local capped = nil
local function let_go(id)
  if capped == nil then capped = call('EXISTS', P .. 'b') == 1 end
  local text = capped and call('HGET', P .. 'b', id)
  if not text then return end
  call('HDEL', P .. 'b', id)
  for bucket in string.gmatch(text, '[^\30]+') do
    if call('HINCRBY', P .. 'A', bucket, -1) <= 0 then call('HDEL', P .. 'A', bucket) end
    local queue = string.match(bucket, '^([^\31]+)\31\31$')
    local first = call('ZRANGE', P .. 'B:' .. bucket, 0, 0)[1]
    if first then
      call('ZADD', P .. 'G', now, bucket)
      local blob = call('HGET', P .. 'j', first)
      if blob then queue = parse(blob) end
    end
    if queue then woken[queue] = (woken[queue] or 0) + 1 end
  end
end

-- Forget the changing parts of a job that has ended.
local function scrub(id, flags)
  if string.find(flags, 's', 1, true) then call('DEL', P .. 'o:' .. id) end
  if string.find(flags, 'g', 1, true) then call('HDEL', P .. 'g', id) end
  if string.find(flags, 'h', 1, true) then call('HDEL', P .. 'h', id) end
  call('HDEL', P .. 'm', id)
  call('HDEL', P .. 'e', id)
end

local function bury(id, queue, type_, extras, attempts, crashes, flags, started, reason, keep, blob)
  free_unique(id, type_, extras, 'w')
  free_unique(id, type_, extras, 'r')
  reason = reason .. runs_of(id, flags)
  scrub(id, flags)
  call('ZADD', P .. 'x:' .. queue, call('HINCRBY', P .. 'n', '#dead', 1), id)
  call('HSET', P .. 'X', id, final(id, 'f', attempts, crashes, started, reason, nil, ''))
  inc(queue, 'failed')
  rate(queue, 's', 1)
  ended(id, 'f')
  if keep >= 0 then
    local over = call('ZCARD', P .. 'x:' .. queue) - keep
    if over > 0 then
      inc(queue, 'trimmed', over)
      for _, old in ipairs(call('ZRANGE', P .. 'x:' .. queue, 0, over - 1)) do
        call('ZREM', P .. 'x:' .. queue, old)
        call('HDEL', P .. 'X', old)
        untag(old, select(4, parse(call('HGET', P .. 'j', old) or '')) or '', 0)
        call('HDEL', P .. 'j', old)
        ended(old, 'c')
      end
    end
  end
end

local function cancelled(id, queue, type_, extras, attempts, crashes, flags, started, err, ttl, blob)
  free_unique(id, type_, extras, 'w')
  free_unique(id, type_, extras, 'r')
  err = err .. runs_of(id, flags)
  scrub(id, flags)
  call('HDEL', P .. 'j', id)
  call('HDEL', P .. 'z', id)
  if ttl > 0 then
    local record, list = final(id, 'c', attempts, crashes, started, err, nil, blob), P .. 'C:' .. queue
    call('SET', P .. 'r:' .. id, record, 'PX', ttl)
    if call('LPUSH', list, record) > 100 then call('LTRIM', list, 0, 99) end
    call('PEXPIRE', list, ttl)
  end
  untag(id, extras, ttl)
  inc(queue, 'cancelled')
  rate(queue, 's', 1)
  ended(id, 'c')
end

-- Job `id` is done (d), dead (f), or cancelled or forgotten (c): what of the jobs that wait for it? Gathered here
-- and worked off one after another: what ends by the end of another must not deepen the stack.
local endings = {}
ended = function(id, how)
  endings[#endings + 1] = id
  endings[#endings + 1] = how
end

-- Whether a job waited for a failure, and none of those it waited for has failed.
local function in_vain(when, parents)
  if when ~= 'failure' then return false end
  for _, parent in ipairs(parents or {}) do
    if call('HEXISTS', P .. 'X', parent) == 1 then return false end
  end
  return true
end

local function let_follow(child, how, when, parent)
  local free = how == 'd' or when ~= 'success'
  if call('HEXISTS', P .. 'pd', child) == 0 then return true end
  if not free and how == 'f' then return false end -- until the dead one is replayed
  if free and call('HINCRBY', P .. 'pd', child, -1) > 0 then return true end
  call('HDEL', P .. 'pd', child)
  local blob = call('HGET', P .. 'j', child)
  if blob then
    call('ZREM', P .. 'd', child)
    local queue, type_, level, extras = parse(blob)
    inc(queue, 'delayed', -1)
    if fault(blob) then delay(child, queue, now) -- claim.lua buries it
    elseif free and in_vain(when, (extra(extras, 'f') or {}).after) then
      cancelled(child, queue, type_, extras, 0, 0, '', 0, 'none of the jobs it waited for has failed', 60000, blob)
    elseif free then ready(child, queue, level, extra(extras, 'k') or '')
    else
      cancelled(child, queue, type_, extras, 0, 0, '', 0,
        'job ' .. parent .. ', which it waited for, was cancelled', 60000, blob)
    end
  end
  return true
end

-- The jobs that wait for `id`; releases before this one kept them in one text.
local function waiters(id)
  local kept = call('HGET', P .. 'N', id)
  if not kept then return {} end
  call('HDEL', P .. 'N', id)
  local list = call('LRANGE', P .. 'N:' .. id, 0, -1)
  call('DEL', P .. 'N:' .. id)
  if not string.match(kept, '^%d+$') then
    for child in string.gmatch(kept, '[^\31]+') do
      local blob = call('HGET', P .. 'j', child)
      local e = blob and facts((select(4, parse(blob))))
      if e and e.f and e.f.when then list[#list + 1] = child .. US .. e.f.when end
    end
  end
  return list
end

-- Remember whose children these are, while their parent's end is known; the first thousand of them.
local KIN, DEAD_MS = 1000, 86400000
local function keep_children(id, children)
  local life = call('PTTL', P .. 'r:' .. id)
  if life == -2 and call('HEXISTS', P .. 'X', id) == 1 then life = DEAD_MS end
  if life <= 0 then return end
  local key = P .. 'f:' .. id
  for k = 1, math.min(#children, KIN) do call('RPUSH', key, children[k]) end
  if call('LLEN', key) > KIN then call('LTRIM', key, 0, KIN - 1) end
  call('PEXPIRE', key, life)
end

local linked = nil
settle = function()
  local at = 1
  while endings[at] do
    if linked == nil then linked = call('EXISTS', P .. 'N') == 1 end
    local id, how, stay, gone = endings[at], endings[at + 1], {}, {}
    at = at + 2
    for _, entry in ipairs(linked and waiters(id) or {}) do
      local child, when = string.match(entry, '^([^\31]*)\31(.*)$')
      local to = let_follow(child, how, when, id) and gone or stay
      to[#to + 1] = to == gone and child or entry
    end
    if #gone > 0 then keep_children(id, gone) end
    if #stay > 0 then
      in_chunks('RPUSH', P .. 'N:' .. id, stay, 2000)
      call('HSET', P .. 'N', id, #stay)
    end
  end
  endings = {}
end
