"""What every room that talks to Redis needs: URLs, TLS, connections, Sentinel, Cluster, scripts.

For the rooms' own ``backends.redis`` only; redis-py is imported when a connection is built.
"""
