-- ARGV: digest, life ms, then names and values of a worker's settings (see settings.lua).
need_none()
local key, pairs_ = P .. 'cf:' .. ARGV[1], {}
for k = 3, #ARGV do pairs_[k - 2] = ARGV[k] end
in_chunks('HSET', key, pairs_, 2000)
call('PEXPIRE', key, ARGV[2])
return 1
