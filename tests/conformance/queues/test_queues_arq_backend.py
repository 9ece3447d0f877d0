"""arq's own queues and workers as a backend, with arq's usual serialization and with JSON."""

from __future__ import annotations

from uuid import uuid4

import pytest

pytest.importorskip("arq", reason="the arq extra is not installed")
from eventperf.queues import QueueManager
from eventperf.testing.queues import HostedSuite, Make


@pytest.fixture(params=["json", "pickle"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.integration
class TestArqBackend(HostedSuite):
    @pytest.fixture
    def make(self, redis_url: str, serializer: str) -> Make:
        namespace = f"t-{uuid4().hex[:8]}"
        url = f"arq+{redis_url}?serializer={serializer}"
        return lambda **options: QueueManager(url, namespace=namespace, **options)
