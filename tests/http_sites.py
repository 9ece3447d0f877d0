"""One application behind the HTTP cache, in either interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from eventperf.cache import CacheManager
from eventperf.contrib.http import HttpCacheMiddleware, WsgiCacheMiddleware
from eventperf.testing import FakeClock

Made = Callable[[dict[str, str]], tuple[int, dict[str, str], "str | list[str]"]]


class Site:
    """One application behind the cache, in either interface, that counts how often it is asked."""

    def __init__(self, kind: str, made: Made, **options: Any) -> None:
        self.kind, self.made, self.calls, self.clock = kind, made, 0, FakeClock()
        self.cache = CacheManager(clock=self.clock)
        options = {"clock": self.clock, **options}
        if kind == "asgi":
            self.asgi = HttpCacheMiddleware(self._asgi, self.cache, **options)
        else:
            self.wsgi = WsgiCacheMiddleware(self._wsgi, self.cache, **options)

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        sent = {k.decode(): v.decode() for k, v in scope["headers"]}
        status, headers, body = self.made(sent)
        raw = [(k.encode(), v.encode()) for k, v in headers.items()]
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for part in body:
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
        await send({"type": "http.response.body"})

    def _wsgi(self, environ: Any, start_response: Any) -> Any:
        self.calls += 1
        sent = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        status, headers, body = self.made(sent)
        start_response(f"{status} Fine", list(headers.items()))
        return [part.encode() for part in body]

    def ask(
        self, path: str = "/a", method: str = "GET", around: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Ask; ``around`` is of the scope or environment."""
        sent = {"host": "site", **{k.replace("_", "-"): v for k, v in headers.items()}}
        path, _, query = path.partition("?")
        if self.kind == "asgi":
            return asyncio.run(self.aask(path, query, method, sent, around))
        environ = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in sent.items()}
        environ |= {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.url_scheme": "http",
            "CONTENT_LENGTH": environ.pop("HTTP_CONTENT_LENGTH", ""),
            **(around or {}),
        }
        told: list[Any] = []
        parts = self.wsgi(environ, lambda status, headers, exc=None: told.extend([status, headers]))
        body = b"".join(parts).decode()
        return int(told[0][:3]), {k.lower(): v for k, v in told[1]}, body

    async def aask(
        self, path: str, query: str, method: str, sent: dict[str, str], around: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, str], str]:
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()], **(around or {}),
        }  # fmt: skip
        got: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            got.append(message)

        await self.asgi(scope, receive, send)
        headers = {k.decode().lower(): v.decode() for k, v in got[0]["headers"]}
        return got[0]["status"], headers, b"".join(m.get("body", b"") for m in got[1:]).decode()


def says(body: str = "hello", status: int = 200, **headers: str) -> Made:
    told = {k.replace("_", "-"): v for k, v in headers.items()}
    return lambda sent: (status, {"content-type": "text/plain", **told}, body)
