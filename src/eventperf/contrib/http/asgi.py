"""Answers kept in front of an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.contexts import reset
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger

from .flow import HttpCache
from .rules import CONDITIONS, SAFE, Asked, bypass, is_whole, place, wants_new
from .stored import Marks, Record, Unstorable, marks
from .who import in_scope

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

_log = logger("eventperf.contrib.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TURNS: Final = (
    16  # of the loop: middlewares that pass pieces on take a few, whoever waits for something more
)
_PIECES: Final = 10_000


class HttpCacheMiddleware:
    """Keep the answers of an ASGI application as a shared cache does.

    What an answer says of itself counts (``Cache-Control``, ``Expires``, ``Vary``); ``ttl`` is for those that
    say nothing, and without it they are not kept. Requests with a body, with cookies or with a header that
    says who asks (``Authorization``) go to the application, answers with ``Set-Cookie``, ``private`` or
    ``no-store`` to nobody but the asker. One answer is made for all who ask at once; ``If-None-Match`` and
    ``If-Modified-Since`` get a 304. A successful POST, PUT, PATCH or DELETE makes what is kept of its URL
    old.

    Args:
        app: The application.
        cache: Where answers are kept; ``cache.invalidate_tags`` makes them forget.
        options: See :class:`HttpCache`.

    >>> from eventperf.cache import CacheManager
    >>> async def site(scope, receive, send): ...
    >>> site = HttpCacheMiddleware(site, CacheManager(), ttl="10s", tags=["site"])
    """

    def __init__(self, app: App, cache: CacheManager, **options: Any) -> None:
        self.http: HttpCache = HttpCache.made(cache, options)
        if not callable(app):
            raise ConfigurationError("app", app, "an ASGI application")
        self.app: App = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = asked_of(scope, self.http.rules.harmless)
        if bypass(asked, self.http.rules):
            await self._around(asked, scope, receive, send)
            return
        if asked.method == "HEAD":
            kept = await self.http.apeek(asked)
            if kept is None:
                await self._around(asked, scope, receive, send)
            else:
                await _respond(self.http, asked, kept, send, hit=True)
            return
        if self.http.streams.knows(asked):
            kept = None if wants_new(asked) else await self.http.apeek(asked)
            if kept is None:
                await self._along(asked, scope, receive, send)
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
        await run.finish(old=record is not run.record)

    async def _along(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a stream through as it is made, and keep a copy of it at its end."""
        copy = await self.http.streams.abegin(asked)
        had_body = ended = False

        async def received() -> Message:
            nonlocal had_body
            message = await receive()
            had_body = had_body or bool(message["type"] == "http.request" and message.get("body"))
            return message

        async def copied(message: Message) -> None:
            nonlocal ended
            await send(message)
            if message["type"] == "http.response.start":
                copy.start(message["status"], _headers(message))
                if message.get("trailers"):
                    copy.drop()
            elif message["type"] == "http.response.body" and not ended:
                copy.add(bytes(message.get("body", b"")))
                if not message.get("more_body"):
                    ended = True
                    if had_body or scope.get("session"):
                        copy.drop()
                    await copy.aend()

        token = marks.set(copy.said)
        try:
            await self.app(scope, received, copied)
        finally:
            reset(marks, token)
            if not ended:
                copy.drop()
                await copy.aend()

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
            reset(marks, token)


class _Run:
    """The application at work on an answer that may be kept: gathered, or handed through once it may not."""

    def __init__(
        self, middleware: HttpCacheMiddleware, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._http, self._app = middleware.http, middleware.app
        self._asked, self._scope, self._get, self._send = asked, scope, receive, send
        self._marks = Marks()
        self._start: Message = {}
        self._parts: list[bytes] = []
        self._size = self._pieces = 0
        self._is_held = self._had_body = self._ended = self._flushed = False
        self._flushing: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.record: Record | None = None

    async def load(self) -> Record:
        """Return the answer of the application.

        Raises:
            Unstorable: It goes through to the client instead.
        """
        if self.record is not None:  # its life was over as soon as it was there
            return self.record
        self._scope, self._loop = plain(self._scope), asyncio.get_running_loop()
        self._decided: asyncio.Future[None] = self._loop.create_future()
        self._verdict: asyncio.Future[bool] = self._loop.create_future()
        self._lock = asyncio.Lock()
        token = marks.set(self._marks)
        try:
            self.task = asyncio.ensure_future(self._app(self._scope, self._receive, self._take))
        finally:
            reset(marks, token)
        await asyncio.wait({self.task, self._decided}, return_when=asyncio.FIRST_COMPLETED)
        if not self._decided.done():
            task, self.task = self.task, None if self.task.exception() else self.task
            task.result()  # its error is everybody's
            raise Unstorable(int(self._start.get("status", 500)))
        if self.record is None:
            raise Unstorable(int(self._start["status"]))
        return self.record

    async def _receive(self) -> Message:
        message = await self._get()
        if message["type"] == "http.request" and message.get("body"):
            self._had_body = True  # HTTP/2 need not announce one
        return message

    def _is_personal(self) -> bool:
        """Tell whether the answer may depend on more than the request line and headers say."""
        return self._had_body or bool(self._scope.get("session"))

    async def _take(self, message: Message) -> None:
        if self._decided.done():
            if not self._is_held or await self._verdict:
                await self._flush()
                await self._send(message)
            return
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            self._body(bytes(message.get("body", b"")), more=bool(message.get("more_body")))
        else:
            if self._start:
                self._decide()
                await self._flush()
            await self._send(message)
            return
        if self._decided.done() and self.record is None and not self._is_held:
            await self._flush()

    def _begin(self, message: Message) -> None:
        self._start = message
        life = self._http.life_of(self._asked, message["status"], _headers(message), self._marks)
        if life is None or message.get("trailers") or self._is_personal():
            self._is_held = message["status"] >= 500 and self._http.rules.grace_s > 0  # an old one may do
            if not self._is_held:
                self._decide()

    def _body(self, part: bytes, *, more: bool) -> None:
        self._parts.append(part)
        self._size += len(part)
        self._pieces += 1
        if self._size > self._http.rules.max_body_bytes or self._pieces > _PIECES:
            self._ended = not more
            self._decide()
        elif more:
            self._look(self._pieces, _TURNS)
        else:
            self._ended = True
            status, headers, body = self._start["status"], _headers(self._start), b"".join(self._parts)
            if not self._is_held and not self._is_personal() and is_whole(headers, body):
                self.record = self._http.record(self._asked, status, headers, body, self._marks)
            self._decide()

    def _look(self, pieces: int, turns: int) -> None:
        """See whether the next piece is there within a few turns of the loop; else this is a stream."""
        if self._decided.done() or pieces != self._pieces:
            return
        if turns:
            self._loop.call_soon(self._look, pieces, turns - 1)
            return
        self._decide()
        if not self._is_held:
            self._http.streams.note(self._asked, self._marks.tags)
            self._flushing = asyncio.ensure_future(self._flush())  # before the others have been told

    def _decide(self) -> None:
        """Say that the answer is gathered, or that it will not be."""
        if not self._decided.done():
            self._decided.set_result(None)

    async def _flush(self) -> None:
        """Hand through what was gathered."""
        async with self._lock:
            if self._flushed:
                return
            self._flushed = True
            body, self._parts = b"".join(self._parts), []
            await self._send(self._start)
            if self._pieces:
                await self._send({"type": "http.response.body", "body": body, "more_body": not self._ended})

    async def deliver(self) -> None:
        """Give the client the answer that was made and not kept, as far as it was made."""
        self._judge(True)
        if self._flushing is not None:
            await self._flushing
        if self._start:
            await self._flush()
        await self.finish()

    def _judge(self, goes_out: bool) -> None:
        """Say whether an answer that was held goes to the client."""
        if not self._verdict.done():
            self._verdict.set_result(goes_out)

    async def finish(self, *, old: bool = False) -> None:
        """Wait for what the application does after its answer (background tasks).

        Args:
            old: An old answer stood in for that of the application: its error is told to the log alone.
        """
        if self.task is None:
            return
        self._judge(not old)
        if old and not self._ended:
            self.task.cancel()  # nobody reads the rest
        try:
            await self.task
        except asyncio.CancelledError:
            if not (old and self.task.cancelled()):
                raise
        except Exception as error:
            if not old:
                raise
            _log.error("an old answer stands in for an error at %s", self._asked.path, exc_info=error)

    def stop(self) -> None:
        """Nobody waits any more."""
        if self.task is not None:
            self.task.cancel()


async def _respond(http: HttpCache, asked: Asked, record: Record, send: Send, *, hit: bool) -> None:
    status, headers, body = http.sent(asked, record, hit=hit)
    sent = [(_raw(k), v.encode("latin-1", "replace")) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=2_000)
def _raw(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _headers(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]


@lru_cache(maxsize=2_000)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()


def asked_of(scope: Mapping[str, Any], harmless: Collection[str] = ()) -> Asked:
    """Return what a scope asks for; ``harmless`` as in :class:`HttpCache`."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = _name(name), value.decode("latin-1")
        headers[key] = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in headers else text
    path = str(scope["path"]).encode("utf-8", "surrogateescape")
    base = str(scope.get("root_path", ""))
    where = place(str(scope.get("scheme", "http")), headers.get("host", ""), base, path.decode("latin-1"))
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0]  # a%2Fb is not a/b
    exact = place("", "", "", raw.decode("latin-1")) if raw and raw != path else ""
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    return Asked(
        method=scope["method"],
        url=f"{where}{exact}?{query}",
        path=where,
        headers=headers,
        known=in_scope(scope),
        harmless=harmless,
    )


def plain(scope: Scope) -> Scope:
    """Return a copy of a scope without conditions: what is kept is the whole answer."""
    kept = [(k, v) for k, v in scope["headers"] if k.decode("latin-1").lower() not in CONDITIONS]
    return {**scope, "headers": kept}
