"""Queues over TLS: one server, a cluster, a master that Sentinels name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eventperf.errors import StoreUnavailable
from eventperf.queues import QueueManager
from servers import tls_settings

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", ["private_redis", "private_redis_cluster", "private_redis_sentinel"])
def test_jobs_travel_over_tls(kind: str, certificates: Path, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)(**tls_settings(certificates))
    certificate = certificates / "cert.pem"
    alone = f"rediss://127.0.0.1:{getattr(server, 'tls_port', 0)}/0?ssl_ca_certs={certificate}"
    url = alone if kind == "private_redis" else server.tls_url

    with QueueManager(url, namespace="tls") as queues:

        @queues.job("double")
        async def double(ctx: Any, data: int) -> int:
            return 2 * data

        jobs = queues.enqueue_many("double", range(20))

        async def main() -> None:
            late = await queues.aenqueue("double", 100)
            async with queues.worker() as worker:
                await worker.arun(burst=True)
            assert await late.aresult(5) == 200
            await queues.aclose()

        asyncio.run(main())
        assert [job.result(5) for job in jobs] == [2 * n for n in range(20)]
    with (
        QueueManager(url.partition("?")[0], namespace="tls") as stranger,
        pytest.raises(StoreUnavailable, match=r"(?i)certificate"),
    ):
        stranger.enqueue("double", 1)
