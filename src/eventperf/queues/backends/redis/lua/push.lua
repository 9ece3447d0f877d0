local answer = push_groups(1, #ARGV)
flush()
return answer
