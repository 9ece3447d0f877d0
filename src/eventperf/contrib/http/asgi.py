"""Answers kept in front of an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from .flow import HttpCache, Marks, Record, Unstorable, marks
from .rules import CONDITIONS, SAFE, Asked, bypass, place

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class HttpCacheMiddleware:
    """Keep the answers of an ASGI application as a shared cache does.

    What an answer says of itself counts (``Cache-Control``, ``Expires``, ``Vary``); ``ttl`` is for those that
    say nothing, and without it they are not kept. Requests with cookies or ``Authorization`` go to the
    application, answers with ``Set-Cookie``, ``private`` or ``no-store`` to nobody but the asker. One answer
    is made for all who ask at once; ``If-None-Match`` and ``If-Modified-Since`` get a 304. A successful POST,
    PUT, PATCH or DELETE makes what is kept of its URL old.

    Args:
        app: The application.
        cache: Where answers are kept; ``cache.invalidate_tags`` makes them forget.
        options: See :class:`HttpCache`.

    >>> from eventperf.cache import CacheManager
    >>> async def site(scope, receive, send): ...
    >>> site = HttpCacheMiddleware(site, CacheManager(), ttl="10s", tags=["site"])
    """

    def __init__(self, app: App, cache: CacheManager, **options: Any) -> None:
        self.app: App = app
        self.http: HttpCache = HttpCache(cache, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = asked_of(scope)
        if bypass(asked, self.http.rules):
            await self._around(asked, scope, receive, send)
            return
        if asked.method == "HEAD":
            kept = self.http.peek(asked)
            if kept is None:
                await self._around(asked, scope, receive, send)
            else:
                await _respond(self.http, asked, kept, send, hit=True)
            return
        run = _Run(self, asked, scope, receive, send)
        try:
            record = await self.http.aanswer(asked, run.load)
        except Unstorable:
            if run.task is None:  # another's answer, which is not ours to see
                await self._around(asked, scope, receive, send)
            else:
                await run.deliver()
            return
        except BaseException:
            run.stop()
            raise
        await _respond(self.http, asked, record, send, hit=record is not run.record)
        await run.finish()

    async def _around(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; forget what a change made old."""
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.http.changed(asked, status):  # before the client knows that it has happened
                    await self.http.cache.ainvalidate_tags(self.http.tag(asked))
            await send(message)

        token = marks.set(Marks())
        try:
            await self.app(scope, receive, watched if asked.method not in SAFE else send)
        finally:
            marks.reset(token)


class _Run:
    """The application at work on an answer that may be kept: gathered, or handed through once it may not."""

    def __init__(
        self, middleware: HttpCacheMiddleware, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._http, self._app = middleware.http, middleware.app
        self._asked, self._scope, self._receive, self._send = asked, plain(scope), receive, send
        self._marks = Marks()
        self._start: Message = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._passes = self._holds = False
        self.task: asyncio.Task[None] | None = None
        self.record: Record | None = None
        self._decided: asyncio.Future[None]

    async def load(self) -> Record:
        """Return the answer of the application.

        Raises:
            Unstorable: It goes through to the client instead.
        """
        self._decided = asyncio.get_running_loop().create_future()
        token = marks.set(self._marks)
        try:
            self.task = asyncio.ensure_future(self._app(self._scope, self._receive, self._take))
        finally:
            marks.reset(token)
        await asyncio.wait({self.task, self._decided}, return_when=asyncio.FIRST_COMPLETED)
        if not self._decided.done():
            self.task.result()  # its error is everybody's
            raise Unstorable(int(self._start.get("status", 500)))
        if self.record is None:
            raise Unstorable(int(self._start["status"]))
        return self.record

    async def _take(self, message: Message) -> None:
        if self._passes:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message
            if self._http.life_of(self._asked, message["status"], _headers(message), self._marks) is None:
                self._holds = message["status"] >= 500 and self._http.rules.grace_s > 0  # an old one may do
                if not self._holds:
                    await self._pass()
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._pass()
            await self._send(message)

    async def _body(self, message: Message) -> None:
        self._parts.append(bytes(message.get("body", b"")))
        self._size += len(self._parts[-1])
        more = bool(message.get("more_body"))
        if self._size > self._http.rules.max_body_bytes:
            await self._pass()
            await self._send({"type": "http.response.body", "body": b"".join(self._parts), "more_body": more})
            self._parts.clear()
        elif not more and not self._decided.done():
            if not self._holds:
                status, headers, body = self._start["status"], _headers(self._start), b"".join(self._parts)
                self.record = self._http.record(self._asked, status, headers, body, self._marks)
            self._decided.set_result(None)

    async def _pass(self) -> None:
        self._passes = True
        await self._send(self._start)
        if not self._decided.done():
            self._decided.set_result(None)

    async def deliver(self) -> None:
        """Give the client the answer that was made and not kept."""
        if self._holds and not self._passes:
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": b"".join(self._parts)})
        await self.finish()

    async def finish(self) -> None:
        """Wait for what the application does after its answer (background tasks)."""
        if self.task is not None:
            await self.task

    def stop(self) -> None:
        """Nobody waits any more."""
        if self.task is not None:
            self.task.cancel()


async def _respond(http: HttpCache, asked: Asked, record: Record, send: Send, *, hit: bool) -> None:
    status, headers, body = http.sent(asked, record, hit=hit)
    sent = [(k.lower().encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _headers(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]


def asked_of(scope: Mapping[str, Any]) -> Asked:
    """Return what a scope asks for."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in headers else text
    path = scope.get("raw_path") or str(scope["path"]).encode("utf-8", "surrogateescape")
    base = str(scope.get("root_path", ""))
    where = place(str(scope.get("scheme", "http")), headers.get("host", ""), base, path.decode("latin-1"))
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    return Asked(method=scope["method"], url=f"{where}?{query}", path=where, headers=headers)


def plain(scope: Scope) -> Scope:
    """Return a copy of a scope without conditions: what is kept is the whole answer."""
    kept = [(k, v) for k, v in scope["headers"] if k.decode("latin-1").lower() not in CONDITIONS]
    return {**scope, "headers": kept}
