"""The lifespan opens and closes what an application was given."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import JobState, QueueManager

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from eventperf.contrib.fastapi import lifespan, queues_of  # noqa: E402


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[Any]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def make(queues: QueueManager, **options: Any) -> Any:
    app = fastapi.FastAPI(lifespan=lifespan(queues=queues, **options))

    @app.post("/hello")
    async def hello(queues: Annotated[QueueManager, fastapi.Depends(queues_of)]) -> dict[str, str]:
        job = await queues.aenqueue("hello", "you")
        return {"id": job.id}

    return app


@pytest.mark.anyio
async def test_an_embedded_worker_runs_jobs_and_stops_with_the_application() -> None:
    queues = QueueManager("memory://")

    @queues.job("hello")
    async def hello(ctx: Any, data: str) -> str:
        return f"hello {data}"

    async with client_of(make(queues, worker={"concurrency": 2})) as client:
        job_id = (await client.post("/hello")).json()["id"]
        assert await queues.aresult(job_id, timeout=10) == "hello you"
        assert max(s.workers for s in await queues.astatus()) == 1
    assert max(s.workers for s in queues.status()) == 0


@pytest.mark.anyio
async def test_without_a_worker_jobs_wait() -> None:
    queues = QueueManager("memory://")
    async with client_of(make(queues)) as client:
        job_id = (await client.post("/hello")).json()["id"]
        assert queues.job_info(job_id).state is JobState.WAITING


@pytest.mark.anyio
async def test_the_inner_lifespan_runs_inside_and_its_state_arrives() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[dict[str, float]]:
        seen.append(f"start {app.state.eventperf.queues is queues}")
        yield {"started": time.time()}
        seen.append("stop")

    queues = QueueManager("memory://")
    app = make(queues, inner=inner)
    async with app.router.lifespan_context(app) as state:
        assert state["started"] > 0
    assert seen == ["start True", "stop"]


@pytest.mark.anyio
async def test_a_missing_lifespan_says_what_to_write() -> None:
    app = make(QueueManager("memory://"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ConfigurationError, match="FastAPI\\(lifespan="):
            await client.post("/hello")


def test_a_worker_without_queues_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="queues="):
        lifespan(worker=True)
