need_memory()
local missing = missing_parent(1, #ARGV)
if missing then return { '', missing } end
local answer = push_groups(1, #ARGV)
flush()
return answer
