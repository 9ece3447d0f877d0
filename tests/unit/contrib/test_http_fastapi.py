"""The FastAPI dependency: a route, or a whole router, says how long its answers may be kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.contrib.http import HttpCacheMiddleware, http_cached
from eventperf.errors import ConfigurationError
from eventperf.testing import FakeClock

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from eventperf.contrib.fastapi import cached_route  # noqa: E402

pytestmark = pytest.mark.anyio


class Shop:
    """One router behind the dependency, that counts how often its views are asked."""

    def __init__(self, keep: Any, *, behind: bool = True, **options: Any) -> None:
        self.calls: list[str] = []
        self.clock = FakeClock()
        self.cache = CacheManager(clock=self.clock)
        self.app = fastapi.FastAPI()
        if behind:
            self.app.add_middleware(HttpCacheMiddleware, cache=self.cache, clock=self.clock, **options)
        router = fastapi.APIRouter(dependencies=[fastapi.Depends(keep)])

        @router.get("/events/{event_id}")
        async def event(event_id: int) -> dict[str, int]:
            return self._made(f"event {event_id}", event_id)

        @router.get("/sync/{number}")
        def sync(number: int) -> dict[str, int]:
            return self._made("sync", number)

        @router.get("/own")
        @http_cached(ttl="1h", tags=["own"])
        async def own() -> dict[str, int]:
            return self._made("own", 1)

        @router.get("/mine")
        async def mine(response: fastapi.Response) -> dict[str, int]:
            response.headers["Cache-Control"] = "private"
            return self._made("mine", 1)

        @router.post("/events/{event_id}")
        async def change(event_id: int) -> dict[str, int]:
            return self._made("change", event_id)

        @self.app.get("/outside")
        async def outside() -> dict[str, int]:
            return self._made("outside", 1)

        self.app.include_router(router)

    def _made(self, what: str, number: int) -> dict[str, int]:
        self.calls.append(what)
        return {"n": number}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            yield client


async def test_all_routes_of_a_router_are_kept_and_no_others() -> None:
    shop = Shop(cached_route("1m"))
    async with shop.client() as client:
        for path in ("/events/1", "/events/2", "/sync/3", "/outside", "/mine"):
            first, second = await client.get(path), await client.get(path)
            assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert shop.calls == ["event 1", "event 2", "sync", "outside", "outside", "mine", "mine"]
        shop.clock.advance(61)
        await client.get("/events/1")
        assert shop.calls[-1] == "event 1"


async def test_its_tags_are_a_list_or_a_function_of_the_request() -> None:
    shop = Shop(cached_route("1m", tags=lambda request: [f"event:{request.path_params.get('event_id')}"]))
    async with shop.client() as client:
        await client.get("/events/1")
        await client.get("/events/2")
        await shop.cache.ainvalidate_tags("event:1")
        await client.get("/events/1")
        await client.get("/events/2")
    assert shop.calls == ["event 1", "event 2", "event 1"]


async def test_a_change_and_who_says_who_he_is_pass_by() -> None:
    shop = Shop(cached_route("1m", tags=["events"]))
    async with shop.client() as client:
        await client.get("/events/1")
        await client.get("/events/1", headers={"Authorization": "Bearer x"})
        await client.post("/events/1")
        await client.get("/events/1")
    assert shop.calls == ["event 1", "event 1", "change", "event 1"]


async def test_the_view_has_the_last_word_over_its_router() -> None:
    shop = Shop(cached_route("1m", tags=["all"]))
    async with shop.client() as client:
        await client.get("/own")
        shop.clock.advance(120)
        await client.get("/own")
        assert shop.calls == ["own"]
        for tag in ("own", "all"):
            await shop.cache.ainvalidate_tags(tag)
            await client.get("/own")
    assert shop.calls == ["own", "own", "own"], "tags of both make it forget"


async def test_a_dependency_that_nothing_reads_is_said() -> None:
    shop = Shop(cached_route("1m"), behind=False)
    async with shop.client() as client:
        with pytest.raises(ConfigurationError, match=r"cached_route.*/events/1.*HttpCacheMiddleware"):
            await client.get("/events/1")


@pytest.mark.parametrize(
    "given", [{"ttl": -1}, {"ttl": "soon"}, {"ttl": 1, "tags": "one"}, {"ttl": 1, "tags": 3}]
)
async def test_what_it_cannot_be_given_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="tags" if "tags" in given else "ttl"):
        cached_route(**given)


async def test_tags_of_a_function_that_fails_are_an_error_and_nothing_is_kept() -> None:
    shop = Shop(cached_route("1m", tags=lambda request: [request.nothing]))
    async with shop.client() as client:
        with pytest.raises(ConfigurationError, match="AttributeError"):
            await client.get("/events/1")
    assert shop.calls == []
