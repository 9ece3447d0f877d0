"""The first tier in process memory: tables, eviction and expiry."""
