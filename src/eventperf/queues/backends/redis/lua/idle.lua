-- The beginning of claim.lua: where nothing waits, is due, runs or is kept back, that is all there is to say.
if redis.call('EXISTS', KEYS[1] .. 'c', KEYS[1] .. 'd', KEYS[1] .. 'l', KEYS[1] .. 'P', KEYS[1] .. 'G') == 0 then
  redis.call('ZADD', KEYS[1] .. 'l', 'XX', 0, '') -- need_memory(), see common.lua
  return { -1, {}, {}, {} }
end
