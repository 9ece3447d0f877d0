"""Answers that are sent while they are made: the cache delays no byte of them, and keeps a bounded copy."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventperf.cache import CacheManager, RedisStore
from eventperf.contrib.http import HttpCacheMiddleware, WsgiCacheMiddleware, http_cached
from http_sites import Site

WAIT_S = 60
KEPT = {"cache-control": "max-age=60", "content-type": "text/csv"}


class Slow:
    """An ASGI application that makes its second piece when somebody has got the first one."""

    def __init__(self, length: int | None = None, status: int = 200, pieces: int = 2) -> None:
        self.calls, self.length, self.status, self.pieces = 0, length, status, pieces
        self.go, self.during, self.fails = asyncio.Event(), lambda: None, False
        self.headers = dict(KEPT)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        told = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        told += [] if self.length is None else [(b"content-length", str(self.length).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": told})
        await send({"type": "http.response.body", "body": b"first,", "more_body": True})
        await self.go.wait()
        self.during()
        if self.fails:
            raise LookupError("broken in the middle")
        for _ in range(self.pieces - 2):
            await send({"type": "http.response.body", "body": b"more,", "more_body": True})
        await send({"type": "http.response.body", "body": b"last"})


async def ask(site: Any, slow: Slow | None = None, method: str = "GET", **headers: str) -> tuple[Any, bytes]:
    """Ask; ``slow`` goes on when its first piece has come here."""
    got: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        got.append(message)
        if slow is not None and message.get("body"):
            slow.go.set()

    sent = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": method, "path": "/export", "headers": sent, "scheme": "http"}
    await asyncio.wait_for(site(scope, receive, send), WAIT_S)
    assert [m["type"] for m in got].count("http.response.start") == 1
    assert not got[-1].get("more_body")
    found = {k.decode(): v.decode() for k, v in got[0]["headers"]}
    return {"status": got[0]["status"], **found}, b"".join(m.get("body", b"") for m in got)


@pytest.mark.parametrize("length", [None, 10])
def test_the_first_piece_is_sent_before_the_second_is_made_and_a_copy_is_kept(length: int | None) -> None:
    async def main() -> None:
        slow = Slow(length)
        site = HttpCacheMiddleware(slow, CacheManager())
        for calls in (1, 2, 2, 2):  # the first one taught that it is a stream
            slow.go.clear()
            headers, body = await ask(site, slow)
            assert body == b"first,last"
            assert slow.calls == calls
        assert "hit" in headers["cache-status"]
        tag = headers["etag"]
        assert (await ask(site, if_none_match=tag))[0]["status"] == 304

    asyncio.run(main())


def test_nobody_waits_for_another_s_stream_that_never_ends() -> None:
    async def main() -> None:
        slow = Slow()
        site = HttpCacheMiddleware(slow, CacheManager())
        for crowd in (3, 3):  # while it is found out, and once it is known
            firsts: asyncio.Queue[bytes] = asyncio.Queue()

            async def send(message: Any, firsts: asyncio.Queue[bytes] = firsts) -> None:
                if message.get("body"):
                    firsts.put_nowait(message["body"])

            scope = {"type": "http", "method": "GET", "path": "/export", "headers": [], "scheme": "http"}
            asking = [asyncio.ensure_future(site(scope, None, send)) for _ in range(crowd)]
            for _ in asking:
                assert await asyncio.wait_for(firsts.get(), WAIT_S) == b"first,"
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        assert site.http.cache.keys() == [], "neither half an answer nor a guard stays"

    asyncio.run(main())


def test_pieces_that_come_at_once_are_one_answer_made_once_for_all() -> None:
    starlette = pytest.importorskip("starlette.middleware.base")
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        told = [(k.encode(), v.encode()) for k, v in KEPT.items()]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        for piece in (b"a", b"b", b"c"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def main() -> None:
        site = HttpCacheMiddleware(starlette.BaseHTTPMiddleware(app, through), CacheManager())
        answers = await asyncio.gather(*(ask(site) for _ in range(20)))
        assert {body for _, body in answers} == {b"abc"}
        assert {"etag", "content-length"} <= answers[0][0].keys()

    asyncio.run(main())
    assert calls == 1


def test_a_copy_is_let_go_where_it_grows_too_large() -> None:
    piece, count = b"x" * 100_000, 100

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told = [(k.encode(), v.encode()) for k, v in KEPT.items()]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        for n in range(count):
            await asyncio.sleep(0 if n else 0.001)
            await send({"type": "http.response.body", "body": bytes(bytearray(piece)), "more_body": True})
        await send({"type": "http.response.body"})

    async def main() -> None:
        site = HttpCacheMiddleware(app, CacheManager(), max_body_bytes=300_000)
        for _ in range(2):
            size = 0

            async def send(message: Any) -> None:
                nonlocal size
                size += len(message.get("body", b""))

            scope = {"type": "http", "method": "GET", "path": "/export", "headers": [], "scheme": "http"}
            tracemalloc.start()
            await site(scope, None, send)  # type: ignore[arg-type]
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert size == len(piece) * count
            assert peak < 2_000_000
        assert site.http.cache.keys() == []

    asyncio.run(main())


OLD: dict[str, Callable[[CacheManager, Any], Any]] = {
    "a tag of all": lambda cache, site: cache.invalidate_tags("all"),
    "a tag of its view": lambda cache, site: cache.invalidate_tags("export"),
    "everything": lambda cache, site: cache.clear(),
    "its URL": lambda cache, site: cache.invalidate_tags("http:http://|/export", "http:http://:|/export"),
    "a pattern": lambda cache, site: cache.invalidate_pattern("*/export*"),
}


@pytest.mark.parametrize("how", OLD)
@pytest.mark.parametrize("where", ["memory", "redis"])
def test_what_was_invalidated_while_it_was_sent_is_not_kept(
    how: str, where: str, request: pytest.FixtureRequest
) -> None:
    url = "" if where == "memory" else request.getfixturevalue("redis_url")

    def opened() -> CacheManager:
        return CacheManager(RedisStore(url, timeout=30) if url else None, namespace="streams")

    async def main() -> None:
        slow = Slow()
        cache, here = opened(), None
        other = opened() if url else cache
        view = http_cached(ttl="1m", tags=["export"])(slow.__call__)
        site = HttpCacheMiddleware(view, cache, tags=["all"])
        for calls in (1, 2, 3, 3):  # what a stream is, its tags, and a copy kept
            slow.go.clear()
            await ask(site, slow)
            here = slow.calls
            assert here <= calls
        cache.clear()
        slow.during = lambda: OLD[how](other, site)
        for more in (1, 2):
            slow.go.clear()
            await ask(site, slow)
            assert slow.calls == (here or 0) + more, "made anew: what was sent is of before"
        cache.clear()
        await cache.aclose()
        other.close()

    asyncio.run(main())


def test_what_breaks_off_is_not_kept_and_leaves_nothing() -> None:
    async def main() -> None:
        slow = Slow()
        site = HttpCacheMiddleware(slow, CacheManager())
        await ask(site, slow)
        slow.fails = True
        for _ in range(2):
            with pytest.raises(LookupError, match="in the middle"):
                await ask(site, slow)
        assert slow.calls == 3
        assert site.http.cache.keys() == []

    asyncio.run(main())


@pytest.mark.parametrize("pieces", [2, 100])
def test_an_old_answer_stands_in_for_a_slow_or_long_error_and_is_the_only_one(pieces: int) -> None:
    from eventperf.testing import FakeClock

    async def main() -> None:
        clock, slow = FakeClock(), Slow()
        site = HttpCacheMiddleware(
            slow, CacheManager(clock=clock), grace="1h", clock=clock, max_body_bytes=200
        )

        async def fine(scope: Any, receive: Any, send: Any) -> None:
            told = [(k.encode(), v.encode()) for k, v in KEPT.items()]
            await send({"type": "http.response.start", "status": 200, "headers": told})
            await send({"type": "http.response.body", "body": b"fine"})

        site.app = fine
        await ask(site)
        clock.advance(61)
        site.app, slow.status, slow.pieces, slow.length = slow, 503, pieces, None
        if pieces > 2:
            slow.go.set()
        headers, body = await ask(site)
        assert (headers["status"], body) == (200, b"fine")
        clock.advance(4_000)
        slow.go.set()
        headers, body = await ask(site)
        assert (headers["status"], body) == (503, b"first," + b"more," * (pieces - 2) + b"last")

    asyncio.run(main())


# -- WSGI ------------------------------------------------------------------------------------------


class SlowWsgi:
    """A WSGI application that says what it makes, piece by piece."""

    def __init__(self, length: int | None = None) -> None:
        self.made: list[str] = []
        self.closed = 0
        self.length, self.during, self.fails = length, lambda: None, False

    def __call__(self, environ: Any, start_response: Any) -> Any:
        told = [*KEPT.items(), *([] if self.length is None else [("Content-Length", str(self.length))])]
        start_response("200 OK", told)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for name in ("first,", "last"):
            self.made.append(name)
            yield name.encode()
            self.during()
            if self.fails:
                raise LookupError("broken in the middle")

    def close(self) -> None:
        self.closed += 1


ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/export", "wsgi.url_scheme": "http", "HTTP_HOST": ""}


def read(site: Any, made: list[str] | None = None) -> tuple[dict[str, str], bytes]:
    """Ask; ``made`` is what the application has made when the first piece comes."""
    told: list[Any] = []
    parts = site(dict(ENVIRON), lambda status, headers, exc=None: told.append((status, headers)))
    body = []
    try:
        for part in parts:
            if made is not None and not body:
                assert made == ["first,"]
            body.append(part)
    finally:
        getattr(parts, "close", lambda: None)()
    return {"status": told[0][0], **{k.lower(): v for k, v in told[0][1]}}, b"".join(body)


@pytest.mark.parametrize("length", [None, 10])
def test_a_wsgi_server_has_the_first_piece_before_the_second_is_made(length: int | None) -> None:
    slow = SlowWsgi(length)
    site = WsgiCacheMiddleware(slow, CacheManager())
    for closed in (1, 2):
        slow.made.clear()
        assert read(site, slow.made)[1] == b"first,last"
        assert slow.closed == closed
    headers, body = read(site)
    assert (body, slow.closed) == (b"first,last", 2)
    assert "hit" in headers["cache-status"]


@pytest.mark.parametrize("how", [how for how in OLD if "view" not in how])
def test_what_was_invalidated_while_wsgi_sent_it_is_not_kept(how: str) -> None:
    slow, cache = SlowWsgi(), CacheManager()
    site = WsgiCacheMiddleware(slow, cache, tags=["all"])
    read(site)
    slow.during = lambda: OLD[how](cache, site)
    for closed in (2, 3):
        read(site)
        assert slow.closed == closed
    assert cache.keys() == []


def test_what_breaks_off_or_is_not_read_to_its_end_is_not_kept_by_wsgi() -> None:
    slow, cache = SlowWsgi(), CacheManager()
    site = WsgiCacheMiddleware(slow, cache)
    read(site)
    parts: Any = site(dict(ENVIRON), lambda *_: None)
    next(iter(parts))
    parts.close()
    slow.fails = True
    with pytest.raises(LookupError):
        read(site)
    assert (cache.keys(), slow.closed) == ([], 3)


def test_a_flask_view_that_streams_is_not_held() -> None:
    flask = pytest.importorskip("flask")
    app, cache, made = flask.Flask("shop"), CacheManager(), []

    def pieces() -> Iterator[str]:
        for name in ("first,", "last"):
            made.append(name)
            yield name

    @app.get("/alone")
    @http_cached(cache, ttl="1m")
    def alone() -> Any:
        return flask.Response(pieces(), mimetype="text/csv")

    @app.get("/export")
    def below() -> Any:
        return flask.Response(pieces(), mimetype="text/csv", headers=KEPT)

    for _ in range(2):
        made.clear()
        answer = app.test_client().get("/alone", buffered=False)
        assert next(answer.iter_encoded()) == b"first,"
        assert made == ["first,"]
    site = WsgiCacheMiddleware(app.wsgi_app, cache)
    for _ in range(2):
        made.clear()
        read(site, made)
    assert "hit" in read(site)[0]["cache-status"]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_path_that_streams_no_more_is_an_answer_like_all_others(kind: str) -> None:
    site = Site(kind, lambda sent: (200, KEPT, ["one piece"]))
    middleware = site.asgi if kind == "asgi" else site.wsgi
    from eventperf.contrib.http.rules import Asked, place

    where = Asked(method="GET", url="", path=place("http", "site", "", "/a"))
    middleware.http.streams.note(where, ["view"])
    site.ask()
    assert not middleware.http.streams.knows(where)
    assert "hit" in site.ask()[1]["cache-status"]
