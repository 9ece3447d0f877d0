"""Jobs on Redis, Valkey or a Redis Cluster, by Lua scripts."""
