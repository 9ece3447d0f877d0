"""The console as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eventperf.contrib.console.web import BODY_LIMIT, Answers, Request, parsed, too_large

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiApp:
    """Answers below the place it is mounted at (``root_path``).

    Stores are read on two threads of its own, so that neither the host's event loop nor its thread pool
    ever waits for the console.
    """

    def __init__(self, console: Answers) -> None:
        self._console = console
        self._pool: ThreadPoolExecutor | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":  # a websocket: there is none here
            await send({"type": "websocket.close", "code": 1000})
            return
        body = await _body(receive)
        if body is None:
            response = too_large()
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(2, thread_name_prefix="eventperf-console")
            request = _request(scope, body)
            response = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._console.respond, request
            )
        headers = [(k.lower().encode("latin-1"), v.encode("latin-1", "replace")) for k, v in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body}
        )


def _request(scope: Scope, body: bytes) -> Request:
    base = str(scope.get("root_path", "")).rstrip("/")
    path = str(scope["path"])
    if base and (path == base or path.startswith(base + "/")):  # servers differ in whether they cut it off
        path = path[len(base) :]
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers[name.decode("latin-1").lower()] = value.decode("latin-1")
    return Request(
        method=scope["method"],
        path=path or "/",
        base=base,
        query=parsed(scope.get("query_string", b"")),
        form=parsed(body),
        headers=headers,
        is_secure=scope.get("scheme") == "https",
        native=scope,
    )


async def _body(receive: Receive) -> bytes | None:
    """Return the body, ``None`` where it is longer than a form may be."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
