-- ARGV: how many partitions. Answers how many the namespace has, of which this is the root: those it was made with.
-- The number stands in the place of two hashes: whoever takes the root for a namespace of its own (a release that knows no
-- partitions, or a process that was not told of them) is refused whatever it asks, instead of being left alone with it.
if call('TYPE', P .. 'c')['ok'] == 'string' then return call('GET', P .. 'c') end
local counted = call('HLEN', P .. 'n') - call('HEXISTS', P .. 'n', '#born')
if counted > 0 or call('EXISTS', P .. 'j', P .. 'c', P .. 'a', P .. 'cr') > 0 then return '1' end
need_memory()
call('SET', P .. 'c', ARGV[1])
call('SET', P .. 'j', ARGV[1])
return ARGV[1]
