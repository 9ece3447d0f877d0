-- ARGV: id
return call('SMEMBERS', P .. 'o:' .. ARGV[1])
