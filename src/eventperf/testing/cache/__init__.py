"""The conformance suite of cache stores: what every first or second tier must make of the cache's promises.

    class TestMyStore(CacheStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore(...)

The store may be a first tier (:class:`~eventperf.cache.MemoryStore` and its like) or a second tier
(:class:`~eventperf.cache.RedisStore` and its like); the suite drives a ``CacheManager`` over it, sync and
async, from threads and tasks.
"""

from __future__ import annotations

from .around import AroundTests
from .entries import EntryTests, Ticket
from .loads import LoadTests

__all__ = ["CacheStoreSuite", "Ticket"]


class CacheStoreSuite(EntryTests, LoadTests, AroundTests):
    """Subclass it and define the fixture ``store``."""
