"""What a CacheManager can be told: the verbs, for threads and for tasks."""
