-- ARGV: schedule, slot ms, 1 when the slot has passed already, then a group with the job. Fires a slot once.
local slot, last = tonumber(ARGV[2]), tonumber(call('HGET', P .. 'cr', ARGV[1])) or -1
if last >= slot then return 0 end
call('HSET', P .. 'cr', ARGV[1], ARGV[2])
if last < 0 and ARGV[3] == '1' then return 0 end -- a new schedule owes nothing of the time before it
push_groups(4, #ARGV)
flush()
return 1
