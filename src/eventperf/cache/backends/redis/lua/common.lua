-- Before the text of every script that reads an entry (KEYS[1]).
-- Returns its bytes from 0 to last, '' where there is none; true when a key of another type is there; the refusal of the server.
local function read(last)
  local got = redis.pcall('GETRANGE', KEYS[1], 0, last)
  if type(got) ~= 'table' then return got, false end
  if string.find(got.err, 'WRONGTYPE', 1, true) then return '', true end
  return '', false, got
end

-- Whether a lease of this token stands in the head.
local function is_led_by(head, token)
  return string.sub(head, 1, 2) == 'E1' and string.sub(head, 5, 20) == token
end

-- The server's time in ms, after so many more.
local function now_ms(more)
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (more or 0)
end

-- Keeps bytes for a life in ms, for ever with '0'.
local function keep(bytes, life)
  if life == '0' then redis.call('SET', KEYS[1], bytes) else redis.call('SET', KEYS[1], bytes, 'PX', life) end
end
