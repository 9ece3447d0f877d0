-- ARGV: worker. Its own thread is woken so that it can end.
call('HDEL', P .. 'wk', ARGV[1])
call('RPUSH', P .. 'W:' .. ARGV[1], 'bye')
call('PEXPIRE', P .. 'W:' .. ARGV[1], 10000)
return 1
