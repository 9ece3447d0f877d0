-- Part of the scripts that need a worker's settings. These are stored once, under their digest, by learn.lua:
--   cf:<digest>  hash  "" -> how many limits US the worker's group, or its queues each US (see places to wait at, common.lua)
--                      1st -> the first queue
--                      q US <queue> -> room (-1: not served) US rank US weight US kept completed US kept dead (-1: all)
--                      l US <queue> US <type> US <1 per key> -> its place US cap US rate US window ms (-1: no such limit)
-- so that a script is told a digest and reads what concerns the queues it meets, however many are declared.
local stored, group, served, limited = nil, nil, {}, false
local of_queue, of_scope = {}, {}

local function scope_of(q, type_, per_key)
  return 'l' .. US .. q .. US .. type_ .. US .. (per_key and '1' or '')
end

-- Read of several queues and limits what is not known yet, in one command; `head` is read with them.
local function learn(queues, scopes, head)
  local fields, asked = { head }, {}
  for _, q in ipairs(queues) do
    local field = 'q' .. US .. q
    if of_queue[q] == nil and not asked[field] then asked[field] = true; fields[#fields + 1] = field end
  end
  for _, scope in ipairs(limited and scopes or {}) do
    if of_scope[scope] == nil and not asked[scope] then asked[scope] = true; fields[#fields + 1] = scope end
  end
  local found = read(stored, fields)
  for at = head and 2 or 1, #fields do
    local field = fields[at]
    local a, b, c, d, e = string.match(found[field] or '', '^(%-?%d+)\31(%-?%d+)\31(%-?%d+)\31(%-?%d+)\31?(%-?%d*)$')
    if string.sub(field, 1, 1) == 'q' then
      of_queue[string.sub(field, 3)] = a and { room = tonumber(a), rank = tonumber(b), weight = tonumber(c),
        done = tonumber(d), dead = tonumber(e) } or false
    else
      local q, t, per_key = string.match(field, '^l\31([^\31]*)\31([^\31]*)\31(1?)$')
      of_scope[field] = a and { place = tonumber(a), cap = tonumber(b), rate = tonumber(c), per = tonumber(d),
        q = q, t = t, key = per_key == '1' } or false
    end
  end
  return head and found[head]
end

-- Whether the settings are there, read with those of `queues`; else nothing may be written yet: the caller stores
-- them and comes again.
local function knows(digest, queues)
  stored = P .. 'cf:' .. digest
  local head = learn(queues, none, '')
  if not head then return false end
  local limits, name, queues = string.match(head, '^(%d+)\31(%x*)\31(.*)$')
  limited, group = limits ~= '0', name ~= '' and name or nil
  for q in string.gmatch(queues, '([^\31]+)\31') do served[#served + 1] = q end
  return true
end

local function queue_of(q)
  if of_queue[q] == nil then learn({ q }) end
  return of_queue[q]
end

-- How many dead jobs of a queue are kept; of one that is not declared here, all.
local function kept_dead(q)
  local found = queue_of(q)
  return found and found.dead or -1
end

-- The limits that a job must pass, in the order in which they are declared.
local of_job = {}
local function rules_for(q, type_, keyed)
  if not limited then return none end
  local name = q .. US .. type_ .. US .. (keyed and '1' or '')
  local rules = of_job[name]
  if rules then return rules end
  local scopes = { scope_of(q, type_), scope_of(q, ''), scope_of('', type_) }
  if keyed then
    for _, scope in ipairs({ scope_of(q, type_, true), scope_of(q, '', true), scope_of('', type_, true),
      scope_of('', '', true) }) do scopes[#scopes + 1] = scope end
  end
  learn(none, scopes)
  rules = {}
  for _, scope in ipairs(scopes) do
    if of_scope[scope] then rules[#rules + 1] = of_scope[scope] end
  end
  table.sort(rules, function(a, b) return a.place < b.place end)
  of_job[name] = rules
  return rules
end
