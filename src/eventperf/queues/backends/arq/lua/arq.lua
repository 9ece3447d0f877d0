-- The verbs of the arq backend: ARGV[1] names one. They work on arq's own keys, and on a few of ours for what
-- arq does not keep: totals, rates, notes of running jobs, live workers, slots of schedules.
local JOB, BUSY, TRIES, RESULT, ABORT = 'arq:job:', 'arq:in-progress:', 'arq:retry:', 'arq:result:', 'arq:abort'
local MINE = 'eventperf:arq:'
local HEAD = 1000 -- running jobs are the oldest due ones: so many of those are looked at
local KEPT_S = 7 * 86400
local SLOT_MS = 10000

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function rate_key(queue, way, slot)
  return MINE .. queue .. ':' .. way .. ':' .. slot
end

local function tell(queue, way)
  local key = rate_key(queue, way, math.floor(now / SLOT_MS))
  redis.call('INCR', key)
  redis.call('EXPIRE', key, 100)
end

local function rate(queue, way)
  local slot, sum = math.floor(now / SLOT_MS), 0
  for i = slot - 6, slot do
    sum = sum + (redis.call('GET', rate_key(queue, way, i)) or 0)
  end
  return tostring(sum / (60 + (now % SLOT_MS) / 1000))
end

local function is_busy(id)
  return redis.call('EXISTS', BUSY .. id) == 1
end

local function push(first)
  for i = first, #ARGV, 5 do
    local id, queue, blob, delay, life = unpack(ARGV, i, i + 4)
    if redis.call('EXISTS', JOB .. id, RESULT .. id) == 0 then
      if life == '' then
        redis.call('SET', JOB .. id, blob)
      else
        redis.call('SET', JOB .. id, blob, 'PX', life)
      end
      redis.call('ZADD', queue, now + delay, id)
      redis.call('HINCRBY', MINE .. queue, 'enqueued', 1)
      tell(queue, 'in')
    end
  end
end

-- Calls visit(queue) for each queue named from ARGV[first] on; stops at its first true answer.
local function any_queue(first, last, visit)
  for i = first, last do
    local answer = visit(ARGV[i], i - first)
    if answer then return answer end
  end
  return false
end

local verbs = {}

function verbs.push()
  push(2)
end

function verbs.fire() -- name, slot, late, then one job
  local last = redis.call('HGET', MINE .. 'schedules', ARGV[2])
  if last and tonumber(last) >= tonumber(ARGV[3]) then return 0 end
  redis.call('HSET', MINE .. 'schedules', ARGV[2], ARGV[3])
  if not last and ARGV[4] == '1' then return 0 end
  push(5)
  return 1
end

function verbs.look() -- number of queues, queues, ids
  local count, found = tonumber(ARGV[2]), {}
  for i = 3 + count, #ARGV do
    local id, score, place = ARGV[i], false, 0
    any_queue(3, 2 + count, function(queue, nth)
      score, place = redis.call('ZSCORE', queue, id), nth
      return score
    end)
    found[#found + 1] = {
      redis.call('GET', RESULT .. id), is_busy(id) and 1 or 0, redis.call('GET', JOB .. id),
      redis.call('GET', TRIES .. id), score, place, unpack(redis.call('HMGET', MINE .. 'notes:' .. id, 'progress', 'error')),
    }
  end
  return { now, found }
end

function verbs.ids() -- queue, state, offset, limit
  local due = ARGV[3] ~= 'delayed'
  local ids = redis.call('ZRANGEBYSCORE', ARGV[2], due and '-inf' or '(' .. now, due and now or '+inf',
    'LIMIT', 0, ARGV[4] + ARGV[5] + HEAD)
  local found, skip = {}, tonumber(ARGV[4])
  for _, id in ipairs(ids) do
    if not due or is_busy(id) == (ARGV[3] == 'active') then
      if skip > 0 then
        skip = skip - 1
      elseif #found < tonumber(ARGV[5]) then
        found[#found + 1] = id
      end
    end
  end
  return found
end

function verbs.counts() -- queues
  local rows = {}
  for i = 2, #ARGV do
    local queue, active, oldest = ARGV[i], 0, 0
    local head = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, HEAD)
    for j = 1, #head, 2 do
      if is_busy(head[j]) then
        active = active + 1
      elseif oldest == 0 then
        oldest = now - head[j + 1]
      end
    end
    local due = redis.call('ZCOUNT', queue, '-inf', now)
    local totals = redis.call('HMGET', MINE .. queue, 'enqueued', 'completed', 'failed', 'cancelled', 'retried')
    rows[#rows + 1] = {
      due - active, redis.call('ZCARD', queue) - due, active, oldest,
      tonumber(totals[1] or 0), tonumber(totals[2] or 0), tonumber(totals[3] or 0), tonumber(totals[4] or 0),
      tonumber(totals[5] or 0), rate(queue, 'in'), rate(queue, 'out'),
    }
  end
  return rows
end

function verbs.load()
  redis.call('ZREMRANGEBYSCORE', MINE .. 'workers', '-inf', now)
  return { redis.call('ZRANGE', MINE .. 'workers', 0, -1), redis.call('GET', MINE .. 'run_s') or '0' }
end

function verbs.cancel() -- id, result of a cancelled job, its life in ms, queues
  local id = ARGV[2]
  return any_queue(5, #ARGV, function(queue)
    if not redis.call('ZSCORE', queue, id) then return false end
    if is_busy(id) then
      redis.call('ZADD', ABORT, now, id)
      return 1
    end
    redis.call('ZREM', queue, id)
    redis.call('DEL', JOB .. id, TRIES .. id, MINE .. 'notes:' .. id)
    redis.call('SET', RESULT .. id, ARGV[3], 'PX', ARGV[4])
    redis.call('HINCRBY', MINE .. queue, 'cancelled', 1)
    return 1
  end) or 0
end

function verbs.purge() -- queue, delayed or waiting
  local due, gone = ARGV[3] ~= 'delayed', 0
  local low, high = due and '-inf' or '(' .. now, due and now or '+inf'
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ARGV[2], low, high)) do
    if not is_busy(id) then
      redis.call('ZREM', ARGV[2], id)
      redis.call('DEL', JOB .. id, TRIES .. id, MINE .. 'notes:' .. id)
      gone = gone + 1
    end
  end
  redis.call('HINCRBY', MINE .. ARGV[2], 'cancelled', gone)
  return gone
end

function verbs.renew() -- worker as listed, its life in ms, lease in ms, number of queues, queues, ids
  redis.call('ZREMRANGEBYSCORE', MINE .. 'workers', '-inf', now) -- takes no memory: a full Redis takes what follows too
  redis.call('ZADD', MINE .. 'workers', now + ARGV[3], ARGV[2])
  local count, lost = tonumber(ARGV[5]), {}
  for i = 6 + count, #ARGV do
    local id = ARGV[i]
    if redis.call('PEXPIRE', BUSY .. id, ARGV[4]) == 0 then
      local is_here = any_queue(6, 5 + count, function(queue) return redis.call('ZSCORE', queue, id) end)
      if is_here then
        redis.call('SET', BUSY .. id, '1', 'PX', ARGV[4])
      else
        lost[#lost + 1] = id
      end
    end
  end
  return lost
end

function verbs.leave() -- worker as listed
  redis.call('ZREM', MINE .. 'workers', ARGV[2])
end

function verbs.ended() -- queue, id, kind, seconds it ran, error
  redis.call('HINCRBY', MINE .. ARGV[2], ARGV[4], 1)
  if ARGV[4] == 'retried' then
    redis.call('HSET', MINE .. 'notes:' .. ARGV[3], 'error', ARGV[6])
    redis.call('EXPIRE', MINE .. 'notes:' .. ARGV[3], KEPT_S)
  else
    tell(ARGV[2], 'out')
    redis.call('DEL', MINE .. 'notes:' .. ARGV[3])
  end
  local mean = redis.call('GET', MINE .. 'run_s')
  redis.call('SET', MINE .. 'run_s', mean and mean + 0.05 * (ARGV[5] - mean) or ARGV[5])
end

function verbs.note() -- id, field, value
  redis.call('HSET', MINE .. 'notes:' .. ARGV[2], ARGV[3], ARGV[4])
  redis.call('EXPIRE', MINE .. 'notes:' .. ARGV[2], KEPT_S)
end

function verbs.steps() -- id
  return redis.call('HKEYS', MINE .. 'notes:' .. ARGV[2])
end

function verbs.time()
  return now
end

return verbs[ARGV[1]]()
