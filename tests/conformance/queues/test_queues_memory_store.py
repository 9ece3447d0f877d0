"""The memory backend against the suite of job stores."""

from __future__ import annotations

import pytest

from eventperf.queues import QueueManager
from eventperf.testing.queues import JobStoreSuite, Make


class TestMemoryStore(JobStoreSuite):
    @pytest.fixture
    def make(self) -> Make:
        return lambda **options: QueueManager("memory://", **options)
