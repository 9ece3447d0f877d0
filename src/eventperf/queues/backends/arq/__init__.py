"""Jobs on arq's own keys, run by arq's own workers."""
