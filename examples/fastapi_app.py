"""A FastAPI application with a cache and a worker inside; run as a script it makes requests of itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI

from eventperf.cache import CacheManager
from eventperf.contrib.fastapi import cache_of, lifespan, queues_of
from eventperf.queues import JobContext, QueueManager

cache = CacheManager()  # redis://... in production
queues = QueueManager("memory://")
loads = 0


@cache.cached(ttl="1m", key="event:{event_id}")
async def load_event(event_id: int) -> dict[str, Any]:
    global loads
    loads += 1
    await asyncio.sleep(0.05)  # the database
    return {"id": event_id, "name": f"Event {event_id}"}


@queues.job("notification_sending")
async def notify(ctx: JobContext, data: str) -> str:
    return f"told {data}"


app = FastAPI(lifespan=lifespan(cache=cache, queues=queues, worker={"concurrency": 4}))


@app.get("/events/{event_id}")
async def show(event_id: int) -> dict[str, Any]:
    return await load_event(event_id)


@app.post("/notify/{name}", status_code=202)
async def enqueue(name: str, queues: Annotated[QueueManager, Depends(queues_of)]) -> dict[str, str]:
    return {"job": (await queues.aenqueue("notification_sending", name)).id}


@app.get("/health")
async def health(cache: Annotated[CacheManager, Depends(cache_of)]) -> dict[str, Any]:
    return {"hit_ratio": round(cache.stats().hit_ratio, 2)}


async def main() -> None:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = await asyncio.gather(*(client.get("/events/7") for _ in range(100)))
            print(f"{len(answers)} requests, {loads} load: {answers[0].json()}")
            job = (await client.post("/notify/ada")).json()["job"]
            print(await queues.aresult(job))
            print((await client.get("/health")).status_code)


if __name__ == "__main__":
    asyncio.run(main())
